//! The calls to CloudWatch.

use serde_json::{Value, json};

use crate::Error;
use crate::state::State;
use crate::wire::text;

type Answer = Result<Value, Error>;

/// The answer, if the operation is one of CloudWatch.
pub(crate) fn answer(state: &mut State, operation: &str, params: &Value) -> Option<Answer> {
    match operation {
        "DescribeAlarms" => Some(describe_alarms(state, params)),
        "GetMetricData" => Some(get_metric_data(state, params)),
        _ => None,
    }
}

/// An alarm whose name begins with `composite/` is a composite one.
fn describe_alarms(state: &mut State, params: &Value) -> Answer {
    let asked = params["AlarmNames"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if asked.len() > 100 {
        return Err(Error::new("ValidationError", "at most 100 names"));
    }
    // Without types, AWS lists metric alarms only.
    let types = params["AlarmTypes"].as_array();
    let is_wanted = |kind: &str| match types {
        None => kind == "MetricAlarm",
        Some(types) => types.iter().any(|it| it == kind),
    };
    let all = |kind: &str| {
        let is_of_kind = |name: &str| name.starts_with("composite/") == (kind == "CompositeAlarm");
        let known = state
            .alarms
            .iter()
            .filter(|(name, _)| is_wanted(kind) && is_of_kind(name));
        let asked = known.filter(|(name, _)| asked.iter().any(|it| it == name.as_str()));
        let shown = asked.map(|(name, value)| {
            let (value, since) = value.split_once(" since ").unwrap_or((value, ""));
            let since: Option<i64> = since.parse().ok();
            let mut alarm = json!({"AlarmName": name, "StateValue": value});
            if let Some(since) = since {
                alarm["StateTransitionedTimestamp"] = since.into();
            }
            alarm
        });
        shown.collect::<Vec<_>>()
    };
    Ok(json!({"MetricAlarms": all("MetricAlarm"), "CompositeAlarms": all("CompositeAlarm")}))
}

/// Sums by period, of whole minutes. The newest come first, as on AWS.
fn get_metric_data(state: &mut State, params: &Value) -> Answer {
    let (start, end) = (params["StartTime"].as_f64(), params["EndTime"].as_f64());
    let (Some(start), Some(end)) = (start, end) else {
        return Err(Error::new("ValidationError", "a start and an end"));
    };
    let queries = params["MetricDataQueries"].as_array().into_iter().flatten();
    let results = queries.map(|query| {
        let metric = &query["MetricStat"]["Metric"];
        let dimensions = metric["Dimensions"].as_array().into_iter().flatten();
        let mut values: Vec<&str> = dimensions.map(|it| text(&it["Value"])).collect();
        values.sort_unstable();
        let name = format!("{} {}", text(&metric["MetricName"]), values.join(" "));
        let known = state.metrics.get(&name).into_iter().flatten();
        let is_asked = |(at, _): &&(i64, f64)| start <= *at as f64 && (*at as f64) < end;
        let mut points: Vec<_> = known.filter(is_asked).copied().collect();
        points.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        json!({
            "Id": query["Id"], "Label": name, "StatusCode": state.metric_status,
            "Timestamps": points.iter().map(|(at, _)| at).collect::<Vec<_>>(),
            "Values": points.iter().map(|(_, value)| value).collect::<Vec<_>>(),
        })
    });
    Ok(json!({"MetricDataResults": results.collect::<Vec<_>>()}))
}
