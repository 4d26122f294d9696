//! AWS calls as the functions send them, and answers as AWS sends them.

use lifecycle::defaults::{
    DRAINING_GRACE_PERIOD_SECONDS, HEALTH_CHECK_GRACE_PERIOD_SECONDS, NOTHING_DEPLOYED,
    SWITCH_ANNOUNCED,
};
use lifecycle::{DeploymentId, tags};
use memory_aws::{Error, forwarded, own_tags, texts};
use serde_json::{Value, json};
use time::{Duration, UtcDateTime};

pub use memory_aws::group_arn;

/// The time at which everything happens, except for what began long ago.
pub const NOW: UtcDateTime = time::macros::utc_datetime!(2025-10-27 12:30:00);
/// The time at which a rollback marks its target and starts fresh tasks. It is later than any mark of a drain,
/// so that no drain seems to have given way to it.
pub const RESTORED_AT: UtcDateTime = time::macros::utc_datetime!(2025-10-27 12:30:01);

/// The marks on a target group, each a bit by its place in [`MARKS`].
pub type Marks = u16;
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

/// `pulse:draining-since`.
pub const DRAINING: Marks = 64;
/// `pulse:idle-since`.
pub const IDLE: Marks = 128;
/// `pulse:stopping-since`.
pub const STOPPING: Marks = 256;
/// `pulse:evicted-at`.
pub const EVICTED: Marks = 512;
/// Not a tag: a switch to the deployment is in flight, so its ready mark is fresh.
pub const ANNOUNCED: Marks = 1024;
/// Not a tag: the draining mark was written while a switch was in flight.
pub const GAVE_WAY: Marks = 2048;

/// Not a tag: a mark that only a run with a defect sees.
pub const UNSEEN: Marks = 4096;

/// The tags behind the bits.
pub const MARKS: [&str; 10] = [
    tags::READY_AT,
    tags::LIVE_SINCE,
    tags::DELETING_SINCE,
    tags::ROLLED_BACK_AT,
    tags::RESTORING_SINCE,
    tags::UNROUTED_SINCE,
    tags::DRAINING_SINCE,
    tags::IDLE_SINCE,
    tags::STOPPING_SINCE,
    tags::EVICTED_AT,
];

/// When each of these marks was set.
fn set_at(mark: &str, marks: Marks) -> UtcDateTime {
    let aged = NOW - SWITCH_ANNOUNCED;
    match mark {
        tags::READY_AT if marks & ANNOUNCED == 0 => aged,
        tags::DRAINING_SINCE if marks & GAVE_WAY != 0 => aged,
        tags::RESTORING_SINCE => RESTORED_AT,
        _ => NOW,
    }
}

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
    /// One of its rules: by header (0) or by cookie (1), or one that was made again (2 or 3).
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
    /// UpdateService that starts fresh tasks.
    StartFreshTasks(Deployment),
    /// UpdateService that sets the grace period: whether to that of a service that drains.
    SetGracePeriod(Deployment, bool),
    /// UpdateService that wants this many tasks.
    LowerCount(Deployment, u8),
    ListTasks(Deployment),
    /// ListTasks of the stopped ones.
    ListStoppedTasks(Deployment),
    /// ListTasks of the releases, of which none runs here.
    ListReleases,
    DescribeTasks(Vec<String>),
    GetSecretValue,
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
            "UpdateService" if params["forceNewDeployment"] == true => {
                Call::StartFreshTasks(named("service"))
            }
            "UpdateService" => match params["desiredCount"].as_u64() {
                Some(count) => {
                    Call::LowerCount(named("service"), u8::try_from(count).expect("few"))
                }
                None => Call::SetGracePeriod(
                    named("service"),
                    params["healthCheckGracePeriodSeconds"] == DRAINING_GRACE_PERIOD_SECONDS,
                ),
            },
            "ListTasks" if params["family"].is_string() => Call::ListReleases,
            "ListTasks" if params["desiredStatus"] == "STOPPED" => {
                Call::ListStoppedTasks(named("serviceName"))
            }
            "ListTasks" => Call::ListTasks(named("serviceName")),
            "DescribeTasks" => {
                let arns = texts(&params["tasks"]).into_iter();
                Call::DescribeTasks(arns.map(str::to_owned).collect())
            }
            "GetSecretValue" => Call::GetSecretValue,
            "ListTaskDefinitions" => Call::ListTaskDefinitions,
            other => panic!("the world does not answer {other}"),
        }
    }
}

impl Call {
    /// Whether it changes something.
    pub fn writes(&self) -> bool {
        match self {
            Call::AddTags(..)
            | Call::RemoveTags(..)
            | Call::ModifyListener(_)
            | Call::DeleteRule(..)
            | Call::DeleteTargetGroup(_)
            | Call::DeleteService(_)
            | Call::StartFreshTasks(_)
            | Call::SetGracePeriod(..)
            | Call::LowerCount(..) => true,
            Call::DescribeListeners
            | Call::DescribeRules
            | Call::DescribeTags(_)
            | Call::DescribeTargetHealth(_)
            | Call::DescribeTargetGroups(_)
            | Call::DescribeServices(_)
            | Call::ListTasks(_)
            | Call::ListStoppedTasks(_)
            | Call::ListReleases
            | Call::DescribeTasks(_)
            | Call::GetSecretValue
            | Call::ListTaskDefinitions => false,
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

/// The tasks of a service, by generations: a rollout starts the next one, and the others stop when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tasks {
    /// How many the service wants. One that is too many stops at once.
    pub wanted: u8,
    /// The newest generation.
    pub newest: u8,
    /// The oldest one that still runs.
    pub oldest: u8,
    /// Whether the grace period is that of a service that drains.
    pub is_endless: bool,
}

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks {
            wanted: 2,
            newest: 0,
            oldest: 0,
            is_endless: false,
        }
    }
}

impl Tasks {
    /// The generations that run, as bits.
    pub fn running(self) -> u8 {
        if self.wanted == 0 {
            return 0;
        }
        (self.oldest..=self.newest).map(|it| 1 << it).sum()
    }

    /// Whether earlier generations than the newest still run.
    pub fn is_rolling(self) -> bool {
        self.oldest < self.newest
    }
}

/// The answer of AWS to a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The call took effect; there is nothing to report.
    Done,
    /// The deployment that the default action names, and one that it names with less weight.
    Default(Option<Deployment>, Option<Deployment>),
    /// The rules of each deployment, as bits.
    Rules(Vec<u8>),
    /// The marks of the resources, in the order of the call.
    Marks(Vec<Marks>),
    /// Whether there is a healthy target.
    Healthy(bool),
    /// The target group exists.
    Group,
    /// The status of the service, and its tasks.
    Service(Service, Tasks),
    /// The generations of tasks that run, as bits.
    Running(u8),
    /// ECS refuses to start tasks, because no rule names the target group.
    Unrouted,
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
            (Answer::Unrouted, _) => {
                let why = "The target group does not have an associated load balancer.";
                return Err(Error::new("InvalidParameterException", why));
            }
            (Answer::Done, Call::ListTaskDefinitions) => json!({"taskDefinitionArns": []}),
            (Answer::Done, Call::ListStoppedTasks(_) | Call::ListReleases) => {
                json!({"taskArns": []})
            }
            (Answer::Done, Call::GetSecretValue) => json!({"SecretString": "secret"}),
            (Answer::Running(generations), Call::ListTasks(deployment)) => {
                let running = (0..8).filter(|generation| generations & (1 << generation) != 0);
                let arns = running.map(|it| format!("{}/{it}", name(*deployment)));
                json!({"taskArns": arns.collect::<Value>()})
            }
            (Answer::Done, Call::DescribeTasks(arns)) => {
                // They have no address yet, so no request goes over the network. The exploration asks them.
                let task = |arn: &String| json!({"taskArn": arn, "lastStatus": "PENDING", "desiredStatus": "RUNNING"});
                json!({"tasks": arns.iter().map(task).collect::<Value>()})
            }
            (Answer::Done, _) => json!({}),
            (Answer::Default(default, also), _) => {
                let action = match (default, also) {
                    (Some(deployment), None) => forward(*deployment),
                    (Some(deployment), Some(also)) => {
                        memory_aws::forward(&[(&name(*deployment), 2), (&name(*also), 1)])
                    }
                    (None, _) => memory_aws::fixed_response("503", NOTHING_DEPLOYED),
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
            (Answer::Service(Service::Gone, _), _) => {
                json!({"services": [], "failures": [{"reason": "MISSING"}]})
            }
            (Answer::Service(status, tasks), Call::DescribeServices(deployment)) => {
                json!({"services": [shape_service(*deployment, *status, *tasks)]})
            }
            (Answer::Service(status, tasks), Call::DeleteService(deployment)) => {
                json!({"service": shape_service(*deployment, *status, *tasks)})
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
        for number in (0..4).filter(|number| bits & (1 << number) != 0) {
            let (again, kind) = (u32::from(number / 2), number % 2);
            let priority = 100 + 20_000 * u32::from(kind) + 10 * again + u32::from(deployment);
            let header = ["X-Pulse-Render-Affinity", "Cookie"][usize::from(kind)];
            let condition = json!({"HttpHeaderName": header, "Values": [name(deployment)]});
            shaped.push(json!({
                "RuleArn": Resource::Rule(deployment, number).arn(),
                "Priority": priority,
                "Conditions": [{"Field": "http-header", "HttpHeaderConfig": condition}],
                "Actions": [forward(deployment)],
            }));
        }
    }
    shaped.into()
}

fn shape_tags(deployment: Deployment, marks: Marks) -> Value {
    let set = (0..).zip(MARKS).filter(|(bit, _)| marks & (1 << bit) != 0);
    let set = set.map(|(_, mark)| (mark.to_owned(), tags::timestamp(set_at(mark, marks))));
    let all = own_tags(&name(deployment)).into_iter().chain(set);
    all.map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect()
}

fn shape_service(deployment: Deployment, status: Service, tasks: Tasks) -> Value {
    let name = name(deployment);
    let began = match tasks.newest {
        0 => NOW - Duration::HOUR,
        _ => RESTORED_AT,
    };
    let mut rollouts = vec![json!({
        "id": "newest",
        "status": "PRIMARY",
        "rolloutState": if tasks.is_rolling() { "IN_PROGRESS" } else { "COMPLETED" },
        "createdAt": began.unix_timestamp(),
    })];
    if tasks.is_rolling() {
        rollouts.push(json!({"id": "earlier", "status": "ACTIVE"}));
    }
    let grace = if tasks.is_endless {
        DRAINING_GRACE_PERIOD_SECONDS
    } else {
        HEALTH_CHECK_GRACE_PERIOD_SECONDS as i32
    };
    json!({
        "serviceName": name,
        "status": if status == Service::Active { "ACTIVE" } else { "DRAINING" },
        "desiredCount": tasks.wanted,
        "runningCount": tasks.wanted,
        "healthCheckGracePeriodSeconds": grace,
        "deployments": rollouts,
        "tags": memory_aws::ecs_tags(&own_tags(&name)),
    })
}
