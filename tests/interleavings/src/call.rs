//! AWS calls as the functions send them, and answers as AWS sends them.

use std::collections::BTreeMap;

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use lifecycle::{DeploymentId, listener, tags};
use time::UtcDateTime;

/// The time at which everything happens: the functions only look at which marks there are.
pub const NOW: UtcDateTime = time::macros::utc_datetime!(2025-10-27 12:30:00);

/// The marks on a target group, each a bit by its place in [`MARKS`].
pub type Marks = u8;
/// `pulse:ready-at`.
pub const READY: Marks = 1;
/// `pulse:live-since`.
pub const LIVE: Marks = 2;
/// `pulse:deleting-since`.
pub const DELETING: Marks = 4;
/// `pulse:rolled-back-at`.
pub const ROLLED_BACK: Marks = 8;
/// `pulse:restoring-since`.
pub const RESTORING: Marks = 16;
/// `pulse:unrouted-since`.
pub const UNROUTED: Marks = 32;

/// The tags behind the bits.
pub const MARKS: [&str; 6] = [
    tags::READY_AT,
    tags::LIVE_SINCE,
    tags::DELETING_SINCE,
    tags::ROLLED_BACK_AT,
    tags::RESTORING_SINCE,
    tags::UNROUTED_SINCE,
];

/// A deployment by its age: 0 is the oldest.
pub type Deployment = u8;

/// The id of a deployment.
pub fn id(deployment: Deployment) -> DeploymentId {
    format!("test-20251027-12211{deployment}Z")
        .parse()
        .expect("a valid id")
}

/// The ARN of a deployment's target group.
pub fn group_arn(deployment: Deployment) -> String {
    format!(
        "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{}/abc",
        id(deployment)
    )
}

fn rule_arn(deployment: Deployment, number: u8) -> String {
    format!(
        "arn:aws:elasticloadbalancing:us-east-1:1:listener-rule/app/test-alb/1/2/{}/{number}",
        id(deployment)
    )
}

/// What carries tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A deployment's target group.
    Group(Deployment),
    /// One of its rules: 0 or 1.
    Rule(Deployment, u8),
}

impl Resource {
    fn arn(self) -> String {
        match self {
            Resource::Group(deployment) => group_arn(deployment),
            Resource::Rule(deployment, number) => rule_arn(deployment, number),
        }
    }

    /// The deployment that it belongs to.
    pub fn deployment(self) -> Deployment {
        match self {
            Resource::Group(deployment) | Resource::Rule(deployment, _) => deployment,
        }
    }

    fn of(arn: &str) -> Resource {
        if let Some(name) = listener::target_group_name(arn) {
            return Resource::Group(deployment(name));
        }
        let mut parts = arn.rsplit('/');
        let number = parts.next().and_then(|number| number.parse().ok());
        let deployment = deployment(parts.next().expect("a rule's ARN"));
        Resource::Rule(deployment, number.expect("a rule's number"))
    }
}

fn deployment(id: &str) -> Deployment {
    let digit = id.strip_suffix('Z').and_then(|id| id.chars().last());
    digit
        .and_then(|digit| digit.to_digit(10))
        .and_then(|digit| digit.try_into().ok())
        .unwrap_or_else(|| panic!("`{id}` is none of the deployments"))
}

/// A call that a function makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the calls of AWS")]
pub enum Call {
    DescribeListeners,
    DescribeRules,
    DescribeTags(Vec<Resource>),
    DescribeTargetHealth(Deployment),
    DescribeTargetGroups(Deployment),
    AddTags(Deployment, Marks),
    RemoveTags(Deployment, Marks),
    ModifyListener(Deployment),
    DeleteRule(Deployment, u8),
    DeleteTargetGroup(Deployment),
    DescribeServices(Deployment),
    DeleteService(Deployment),
    ListTaskDefinitions,
}

impl Call {
    /// Reads a call from the wire.
    ///
    /// # Panics
    /// On a call that the functions were not known to make: it has to be added here and to the world.
    pub fn read(request: &HttpRequest) -> Call {
        let body = request.body().bytes().unwrap_or_default();
        match request.headers().get("x-amz-target") {
            Some(target) => Call::of_ecs(target, body),
            None => Call::of_elb(body),
        }
    }

    fn of_ecs(target: &str, body: &[u8]) -> Call {
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        let text = |value: &serde_json::Value| deployment(value.as_str().unwrap_or_default());
        match target.rsplit('.').next() {
            Some("DescribeServices") => Call::DescribeServices(text(&body["services"][0])),
            Some("DeleteService") => Call::DeleteService(text(&body["service"])),
            Some("ListTaskDefinitions") => Call::ListTaskDefinitions,
            other => panic!("nothing answers {other:?}"),
        }
    }

    fn of_elb(body: &[u8]) -> Call {
        let fields: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
        let all = |prefix: &str, suffix: &str| -> Vec<String> {
            let matches = |key: &str| key.starts_with(prefix) && key.ends_with(suffix);
            fields
                .iter()
                .filter(|(key, _)| matches(key))
                .map(|(_, value)| value.clone())
                .collect()
        };
        let group = |arn: &str| match Resource::of(arn) {
            Resource::Group(deployment) => deployment,
            rule => panic!("{rule:?} is no target group"),
        };
        let one = |prefix: &str, suffix: &str| match &all(prefix, suffix)[..] {
            [one] => one.clone(),
            other => panic!("one {prefix}, not {other:?}"),
        };
        let marks = |keys: Vec<String>| {
            let bit = |key: &String| MARKS.iter().position(|mark| mark == key);
            keys.iter()
                .map(|key| 1 << bit(key).unwrap_or_else(|| panic!("{key} is no mark")))
                .sum()
        };
        match fields["Action"].as_str() {
            "DescribeListeners" => Call::DescribeListeners,
            "DescribeRules" => Call::DescribeRules,
            "DescribeTags" => Call::DescribeTags(
                all("ResourceArns.", "")
                    .iter()
                    .map(|arn| Resource::of(arn))
                    .collect(),
            ),
            "DescribeTargetHealth" => Call::DescribeTargetHealth(group(&fields["TargetGroupArn"])),
            "DescribeTargetGroups" => Call::DescribeTargetGroups(deployment(&one("Names.", ""))),
            "AddTags" => Call::AddTags(
                group(&one("ResourceArns.", "")),
                marks(all("Tags.", ".Key")),
            ),
            "RemoveTags" => {
                Call::RemoveTags(group(&one("ResourceArns.", "")), marks(all("TagKeys.", "")))
            }
            "ModifyListener" => {
                Call::ModifyListener(group(&one("DefaultActions.", "TargetGroupArn")))
            }
            "DeleteRule" => match Resource::of(&fields["RuleArn"]) {
                Resource::Rule(deployment, number) => Call::DeleteRule(deployment, number),
                group => panic!("{group:?} is no rule"),
            },
            "DeleteTargetGroup" => Call::DeleteTargetGroup(group(&fields["TargetGroupArn"])),
            other => panic!("nothing answers {other}"),
        }
    }
}

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after ECS's words")]
pub enum Service {
    Active,
    Draining,
    Gone,
}

/// What AWS says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Carried out; there is nothing to say.
    Done,
    /// What the default action names.
    Default(Option<Deployment>),
    /// How many rules each deployment has, as bits.
    Rules(Vec<u8>),
    /// The marks of what was asked for, in that order.
    Marks(Vec<Marks>),
    /// Whether there is a healthy target.
    Healthy(bool),
    /// The target group is there.
    Group,
    /// The service.
    Service(Service),
    /// An error by its code.
    Error(&'static str),
}

impl Answer {
    /// The answer to that call, as status and body.
    pub fn write(&self, call: &Call) -> (u16, String) {
        match (self, call) {
            (Answer::Error(code), Call::DescribeServices(_) | Call::DeleteService(_)) => {
                (400, serde_json::json!({"__type": code}).to_string())
            }
            (Answer::Error(code), _) => (
                if *code == "InternalFailure" { 500 } else { 400 },
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
                     <Message>said the test</Message></Error></ErrorResponse>"
                ),
            ),
            (Answer::Service(service), call) => (200, service_json(*service, call)),
            (Answer::Done, Call::ListTaskDefinitions) => {
                (200, r#"{"taskDefinitionArns":[]}"#.into())
            }
            (answer, call) => (200, answer.xml(call)),
        }
    }

    fn xml(&self, call: &Call) -> String {
        let debug = format!("{call:?}");
        let name = debug.split('(').next().unwrap_or_default();
        let result = match (self, call) {
            (Answer::Default(default), _) => {
                let action = match default {
                    Some(deployment) => forward(*deployment),
                    None => "<member><Type>fixed-response</Type></member>".into(),
                };
                format!(
                    "<Listeners><member><DefaultActions>{action}</DefaultActions></member></Listeners>"
                )
            }
            (Answer::Rules(rules), _) => {
                let mut members = String::new();
                for (deployment, bits) in (0..).zip(rules) {
                    for number in (0..2).filter(|number| bits & (1 << number) != 0) {
                        let priority = 100 + 20_000 * u32::from(number) + u32::from(deployment);
                        members += &format!(
                            "<member><RuleArn>{}</RuleArn><Priority>{priority}</Priority>\
                             <Actions>{}</Actions></member>",
                            rule_arn(deployment, number),
                            forward(deployment)
                        );
                    }
                }
                format!("<Rules>{members}</Rules>")
            }
            (Answer::Marks(marks), Call::DescribeTags(resources)) => {
                let mut members = String::new();
                for (resource, marks) in resources.iter().zip(marks) {
                    members += &format!(
                        "<member><ResourceArn>{}</ResourceArn><Tags>{}</Tags></member>",
                        resource.arn(),
                        tags_xml(resource.deployment(), *marks)
                    );
                }
                format!("<TagDescriptions>{members}</TagDescriptions>")
            }
            (Answer::Healthy(healthy), _) => format!(
                "<TargetHealthDescriptions><member><TargetHealth><State>{}</State></TargetHealth>\
                 </member></TargetHealthDescriptions>",
                if *healthy { "healthy" } else { "unhealthy" }
            ),
            (Answer::Group, Call::DescribeTargetGroups(deployment)) => format!(
                "<TargetGroups><member><TargetGroupArn>{}</TargetGroupArn></member></TargetGroups>",
                group_arn(*deployment)
            ),
            (Answer::Done, _) => String::new(),
            (answer, call) => panic!("{answer:?} is no answer to {call:?}"),
        };
        format!("<{name}Response><{name}Result>{result}</{name}Result></{name}Response>")
    }
}

fn forward(deployment: Deployment) -> String {
    format!(
        "<member><Type>forward</Type><TargetGroupArn>{}</TargetGroupArn></member>",
        group_arn(deployment)
    )
}

fn tags_xml(deployment: Deployment, marks: Marks) -> String {
    let marks = (0..)
        .zip(MARKS)
        .filter(|(bit, _)| marks & (1 << bit) != 0)
        .map(|(_, mark)| (mark, tags::timestamp(NOW)));
    tags::of(&id(deployment))
        .into_iter()
        .chain(marks)
        .map(|(key, value)| format!("<member><Key>{key}</Key><Value>{value}</Value></member>"))
        .collect()
}

fn service_json(service: Service, call: &Call) -> String {
    let (Call::DescribeServices(deployment) | Call::DeleteService(deployment)) = call else {
        panic!("{call:?} is not about services");
    };
    let status = match service {
        Service::Active => "ACTIVE",
        Service::Draining => "DRAINING",
        Service::Gone => return r#"{"services":[],"failures":[{"reason":"MISSING"}]}"#.into(),
    };
    let tags: Vec<_> = tags::of(&id(*deployment))
        .iter()
        .map(|(key, value)| serde_json::json!({"key": key, "value": value}))
        .collect();
    let service = serde_json::json!({
        "serviceName": id(*deployment).as_str(), "status": status, "tags": tags,
    });
    match call {
        Call::DeleteService(_) => serde_json::json!({"service": service}),
        _ => serde_json::json!({"services": [service]}),
    }
    .to_string()
}
