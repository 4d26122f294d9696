//! AWS calls as the functions send them, and answers as AWS sends them.

use lifecycle::{DeploymentId, tags};
use memory_aws::{Error, forwarded, own_tags, texts};
use serde_json::{Value, json};
use time::UtcDateTime;

pub use memory_aws::group_arn;

/// The time at which everything happens: the functions only check which marks exist.
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
    name(deployment).parse().expect("a valid id")
}

/// The id as text, which is also the name of the target group.
pub fn name(deployment: Deployment) -> String {
    format!("test-20251027-12211{deployment}Z")
}

/// A resource that carries tags.
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
            Resource::Group(deployment) => group_arn(&name(deployment)),
            Resource::Rule(deployment, number) => {
                memory_aws::rule_arn(&format!("{}/{number}", name(deployment)))
            }
        }
    }

    /// The deployment that it belongs to.
    pub fn deployment(self) -> Deployment {
        match self {
            Resource::Group(deployment) | Resource::Rule(deployment, _) => deployment,
        }
    }

    fn from_arn(arn: &str) -> Resource {
        let mut parts = arn.rsplit('/');
        let last = parts.next().unwrap_or_default();
        let deployment = from_name(parts.next().unwrap_or_default());
        match last.parse() {
            Ok(number) => Resource::Rule(deployment, number),
            Err(_) => Resource::Group(deployment),
        }
    }
}

fn from_name(name: &str) -> Deployment {
    let digit = name.strip_suffix('Z').and_then(|name| name.chars().last());
    digit
        .and_then(|digit| digit.to_digit(10))
        .and_then(|digit| digit.try_into().ok())
        .unwrap_or_else(|| panic!("`{name}` is not one of the deployments"))
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
    /// On a call that is not known here: add it to this enum and to the world.
    pub fn read(call: &memory_aws::Call) -> Call {
        let params = &call.params;
        let one = |list: Vec<&str>| match list[..] {
            [one] => one.to_owned(),
            _ => panic!("one resource, not {list:?}"),
        };
        let resource = |arn: &Value| Resource::from_arn(arn.as_str().unwrap_or_default());
        let named = |name: &str| from_name(params[name].as_str().unwrap_or_default());
        let tagged = || Resource::from_arn(&one(texts(&params["ResourceArns"]))).deployment();
        match call.operation.as_str() {
            "DescribeListeners" => Call::DescribeListeners,
            "DescribeRules" => Call::DescribeRules,
            "DescribeTags" => {
                let arns = texts(&params["ResourceArns"]).into_iter();
                Call::DescribeTags(arns.map(Resource::from_arn).collect())
            }
            "DescribeTargetHealth" => {
                Call::DescribeTargetHealth(resource(&params["TargetGroupArn"]).deployment())
            }
            "DescribeTargetGroups" => {
                Call::DescribeTargetGroups(from_name(&one(texts(&params["Names"]))))
            }
            "AddTags" => {
                let tags = params["Tags"].as_array().into_iter().flatten();
                let keys = tags.filter_map(|tag| tag["Key"].as_str());
                Call::AddTags(tagged(), marks(keys))
            }
            "RemoveTags" => Call::RemoveTags(tagged(), marks(texts(&params["TagKeys"]))),
            "ModifyListener" => {
                let arns = forwarded(&params["DefaultActions"]);
                let arn = one(arns.iter().map(String::as_str).collect());
                Call::ModifyListener(Resource::from_arn(&arn).deployment())
            }
            "DeleteRule" => match resource(&params["RuleArn"]) {
                Resource::Rule(deployment, number) => Call::DeleteRule(deployment, number),
                group => panic!("{group:?} is not a rule"),
            },
            "DeleteTargetGroup" => {
                Call::DeleteTargetGroup(resource(&params["TargetGroupArn"]).deployment())
            }
            "DescribeServices" => {
                Call::DescribeServices(from_name(&one(texts(&params["services"]))))
            }
            "DeleteService" => Call::DeleteService(named("service")),
            "ListTaskDefinitions" => Call::ListTaskDefinitions,
            other => panic!("the world does not answer {other}"),
        }
    }
}

fn marks<'a>(keys: impl IntoIterator<Item = &'a str>) -> Marks {
    let bit = |key| MARKS.iter().position(|mark| *mark == key);
    keys.into_iter()
        .map(|key| 1 << bit(key).unwrap_or_else(|| panic!("{key} is not a mark")))
        .sum()
}

/// The status of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the statuses of ECS")]
pub enum Service {
    Active,
    Draining,
    Gone,
}

/// The answer of AWS to a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The call took effect; there is nothing to report.
    Done,
    /// The deployment that the default action names.
    Default(Option<Deployment>),
    /// The rules of each deployment, as bits.
    Rules(Vec<u8>),
    /// The marks of the resources, in the order of the call.
    Marks(Vec<Marks>),
    /// Whether there is a healthy target.
    Healthy(bool),
    /// The target group exists.
    Group,
    /// The status of the service.
    Service(Service),
    /// An error with this code.
    Error(&'static str),
}

impl Answer {
    /// The answer to that call as AWS shapes it.
    ///
    /// # Errors
    /// When AWS answers with an error.
    pub fn shape(&self, call: &Call) -> Result<Value, Error> {
        Ok(match (self, call) {
            (Answer::Error(code), _) => return Err(Error::new(*code, "injected by the test")),
            (Answer::Done, Call::ListTaskDefinitions) => json!({"taskDefinitionArns": []}),
            (Answer::Done, _) => json!({}),
            (Answer::Default(default), _) => {
                let action = match default {
                    Some(deployment) => forward(*deployment),
                    None => json!({"Type": "fixed-response"}),
                };
                json!({"Listeners": [{"DefaultActions": [action]}]})
            }
            (Answer::Rules(rules), _) => json!({"Rules": shape_rules(rules)}),
            (Answer::Marks(marks), Call::DescribeTags(resources)) => {
                let described = resources.iter().zip(marks).map(|(resource, marks)| {
                    let tags = shape_tags(resource.deployment(), *marks);
                    json!({"ResourceArn": resource.arn(), "Tags": tags})
                });
                json!({"TagDescriptions": described.collect::<Value>()})
            }
            (Answer::Healthy(healthy), _) => {
                let state = if *healthy { "healthy" } else { "unhealthy" };
                json!({"TargetHealthDescriptions": [{"TargetHealth": {"State": state}}]})
            }
            (Answer::Group, Call::DescribeTargetGroups(deployment)) => {
                json!({"TargetGroups": [{"TargetGroupArn": group_arn(&name(*deployment))}]})
            }
            (Answer::Service(Service::Gone), _) => {
                json!({"services": [], "failures": [{"reason": "MISSING"}]})
            }
            (Answer::Service(status), Call::DescribeServices(deployment)) => {
                json!({"services": [shape_service(*deployment, *status)]})
            }
            (Answer::Service(status), Call::DeleteService(deployment)) => {
                json!({"service": shape_service(*deployment, *status)})
            }
            (answer, call) => panic!("{answer:?} does not answer {call:?}"),
        })
    }
}

fn forward(deployment: Deployment) -> Value {
    memory_aws::forward(&[(&name(deployment), 1)])
}

fn shape_rules(rules: &[u8]) -> Value {
    let mut shaped = Vec::new();
    for (deployment, bits) in (0..).zip(rules) {
        for number in (0..2).filter(|number| bits & (1 << number) != 0) {
            let priority = 100 + 20_000 * u32::from(number) + u32::from(deployment);
            shaped.push(json!({
                "RuleArn": Resource::Rule(deployment, number).arn(),
                "Priority": priority,
                "Actions": [forward(deployment)],
            }));
        }
    }
    shaped.into()
}

fn shape_tags(deployment: Deployment, marks: Marks) -> Value {
    let marks = (0..).zip(MARKS).filter(|(bit, _)| marks & (1 << bit) != 0);
    let marks = marks.map(|(_, mark)| (mark.to_owned(), tags::timestamp(NOW)));
    let all = own_tags(&name(deployment)).into_iter().chain(marks);
    all.map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect()
}

fn shape_service(deployment: Deployment, status: Service) -> Value {
    let name = name(deployment);
    json!({
        "serviceName": name,
        "status": if status == Service::Active { "ACTIVE" } else { "DRAINING" },
        "tags": memory_aws::ecs_tags(&own_tags(&name)),
    })
}
