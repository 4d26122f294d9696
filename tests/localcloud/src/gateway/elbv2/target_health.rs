//! Targets and their health, from the local cloud's own health checks.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTargetHealth.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RegisterTargets.html>

use std::{fmt::Write, net::IpAddr};

use super::snapshot::{Snapshot, TargetGroup};
use crate::{
    gateway::{
        answer::{Answer, AwsError, query_answer},
        operation::Params,
    },
    load_balancer::targets::{TargetHealth, Targets},
};

/// The zone of targets that are registered without one.
const DEFAULT_ZONE: &str = "us-east-1a";

/// Answers one of the three operations on targets.
pub fn answer(
    operation: &str,
    params: &Params,
    state: &Snapshot,
    targets: &Targets,
) -> Result<Answer, AwsError> {
    let arn = params.get("TargetGroupArn").unwrap_or_default();
    let group = state.target_group(arn).ok_or_else(|| {
        AwsError::new("TargetGroupNotFound", "One or more target groups not found")
    })?;
    let named = named(params, group)?;
    match operation {
        "RegisterTargets" => {
            for (ip, port, zone) in named {
                targets.register(arn, ip, port, &zone);
            }
            Ok(query_answer(operation, ""))
        }
        "DeregisterTargets" => {
            for (ip, port, _) in named {
                targets.deregister(arn, ip, port);
            }
            Ok(query_answer(operation, ""))
        }
        _ => Ok(describe(&named, targets.health(arn))),
    }
}

/// The targets that a request names.
fn named(params: &Params, group: &TargetGroup) -> Result<Vec<(IpAddr, u16, String)>, AwsError> {
    let ids = params.members("Targets", ".Id");
    let targets = ids.iter().enumerate().map(|(index, id)| {
        let number = index + 1;
        let ip = id.parse().map_err(|_| {
            AwsError::new(
                "ValidationError",
                format!("The IP address '{id}' is not a valid IPv4 address"),
            )
        })?;
        let port = match params.get(&format!("Targets.member.{number}.Port")) {
            None => group.port,
            Some(port) => port.parse().map_err(|_| {
                AwsError::new("ValidationError", format!("The port '{port}' is not valid"))
            })?,
        };
        let zone = params
            .get(&format!("Targets.member.{number}.AvailabilityZone"))
            .unwrap_or(DEFAULT_ZONE);
        Ok((ip, port, zone.to_owned()))
    });
    targets.collect()
}

fn describe(named: &[(IpAddr, u16, String)], health: Vec<TargetHealth>) -> Answer {
    let is_requested = |ip, port| {
        named.is_empty()
            || named
                .iter()
                .any(|(named, named_port, _)| (*named, *named_port) == (ip, port))
    };
    let mut xml = String::from("<TargetHealthDescriptions>");
    for target in health
        .iter()
        .filter(|target| is_requested(target.ip, target.port))
    {
        member(&mut xml, target);
    }
    // Targets that the request names but that are not registered.
    for (ip, port, zone) in named {
        if !health
            .iter()
            .any(|target| (target.ip, target.port) == (*ip, *port))
        {
            member(
                &mut xml,
                &TargetHealth {
                    ip: *ip,
                    port: *port,
                    zone: zone.clone(),
                    state: "unused",
                    reason: Some("Target.NotRegistered"),
                    description: Some("Target is not registered to the target group".into()),
                },
            );
        }
    }
    xml.push_str("</TargetHealthDescriptions>");
    query_answer("DescribeTargetHealth", &xml)
}

fn member(xml: &mut String, target: &TargetHealth) {
    let TargetHealth {
        ip,
        port,
        zone,
        state,
        reason,
        description,
    } = target;
    let optional = |name: &str, text: Option<&str>| {
        text.map_or_else(String::new, |text| {
            format!("<{name}>{}</{name}>", quick_xml::escape::escape(text))
        })
    };
    let reason = optional("Reason", *reason);
    let description = optional("Description", description.as_deref());
    // Writing to a string cannot fail.
    let _ = write!(
        xml,
        "<member><Target><Id>{ip}</Id><Port>{port}</Port><AvailabilityZone>{zone}</AvailabilityZone></Target>\
         <HealthCheckPort>{port}</HealthCheckPort>\
         <TargetHealth><State>{state}</State>{reason}{description}</TargetHealth></member>"
    );
}
