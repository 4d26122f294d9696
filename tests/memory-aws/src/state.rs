//! What the account holds, and short functions for a test to set it up.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::wire::text;
use crate::{Call, Error};

/// The listener of the environment `test`.
pub const LISTENER_ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:1:listener/app/test-alb/1/2";
/// The secret for `POST /drain`.
pub const DRAIN_SECRET_ARN: &str = "arn:aws:secretsmanager:us-east-1:1:secret:test/drain-secret-a";
/// The machine that deploys.
pub const DEPLOY_MACHINE_ARN: &str = "arn:aws:states:us-east-1:1:stateMachine:test-deploy";
/// The machine that rolls back.
pub const ROLLBACK_MACHINE_ARN: &str = "arn:aws:states:us-east-1:1:stateMachine:test-rollback";
/// The digest of an image that [`State::deploy`] and a test put under a deployment's tag.
pub const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";
/// The time of the account when a test begins, 2025-10-27 12:30:00 UTC, in seconds since 1970.
pub const NOW: i64 = 1_761_568_200;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// Tags from pairs.
pub fn tags<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tags {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    pairs.into_iter().map(owned).collect()
}

/// The tags that say which deployment a resource belongs to.
pub fn own_tags(deployment: &str) -> Tags {
    let environment = deployment.rsplitn(3, '-').nth(2).unwrap_or_default();
    tags([
        ("pulse:deployment-id", deployment),
        ("pulse:environment", environment),
    ])
}

/// The ARN of the target group of that name.
pub fn group_arn(name: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/abc")
}

/// The ARN of the rule of that name.
pub fn rule_arn(name: &str) -> String {
    let listener = LISTENER_ARN.replace(":listener/", ":listener-rule/");
    format!("{listener}/{name}")
}

/// The ARN of the service of that name.
pub fn service_arn(name: &str) -> String {
    format!("arn:aws:ecs:us-east-1:1:service/test/{name}")
}

/// The ARN of the revision of the family `test-app`.
pub fn revision_arn(revision: usize) -> String {
    format!("arn:aws:ecs:us-east-1:1:task-definition/test-app:{revision}")
}

/// The action that forwards to these target groups with these weights.
pub fn forward(groups: &[(&str, u32)]) -> Value {
    let groups = groups.iter().map(
        |(name, weight)| json!({"TargetGroupArn": group_arn(name), "Weight": weight.to_string()}),
    );
    let groups: Vec<Value> = groups.collect();
    crate::elb::as_shown(&json!({
        "Type": "forward",
        "ForwardConfig": {"TargetGroups": groups},
    }))
}

/// The ARNs of the target groups that actions, as AWS shows or takes them, forward to.
pub fn forwarded(actions: &Value) -> Vec<String> {
    let actions = crate::elb::all_as_shown(actions);
    let arns = crate::elb::named(&actions).into_iter();
    arns.map(str::to_owned).collect()
}

/// The action that answers by itself.
pub fn fixed_response(status: &str, body: &str) -> Value {
    json!({
        "Type": "fixed-response",
        "FixedResponseConfig": {"StatusCode": status, "MessageBody": body},
    })
}

/// The action that authenticates by OpenID Connect as this client, with the client's secret.
pub fn authenticate_oidc(client: &str) -> Value {
    json!({
        "Type": "authenticate-oidc",
        "Order": "1",
        "AuthenticateOidcConfig": {
            "Issuer": "https://login.example.com",
            "AuthorizationEndpoint": "https://login.example.com/authorize",
            "TokenEndpoint": "https://login.example.com/token",
            "UserInfoEndpoint": "https://login.example.com/user",
            "ClientId": client,
            "ClientSecret": format!("secret of {client}"),
            "SessionTimeout": "604800",
            "AuthenticationRequestExtraParams": {"entry": [{"key": "prompt", "value": "login"}]},
        },
    })
}

/// The action that authenticates by this user pool of Cognito.
pub fn authenticate_cognito(pool: &str) -> Value {
    json!({
        "Type": "authenticate-cognito",
        "Order": "1",
        "AuthenticateCognitoConfig": {
            "UserPoolArn": pool,
            "UserPoolClientId": "client",
            "UserPoolDomain": "login",
        },
    })
}

/// The action that accepts only requests with a token of this issuer.
pub fn validate_jwt(issuer: &str) -> Value {
    let claim = json!({"Name": "scope", "Format": "single-string", "Values": ["read"]});
    json!({
        "Type": "jwt-validation",
        "Order": "1",
        "JwtValidationConfig": {
            "JwksEndpoint": "https://login.example.com/keys",
            "Issuer": issuer,
            "AdditionalClaims": [claim],
        },
    })
}

/// A listener.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named after the fields of AWS")]
pub struct Listener {
    pub arn: String,
    pub default_actions: Vec<Value>,
}

/// A rule of a listener, other than the default rule.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named after the fields of AWS")]
pub struct Rule {
    pub arn: String,
    pub listener_arn: String,
    pub priority: u32,
    pub conditions: Value,
    pub actions: Vec<Value>,
    pub tags: Tags,
}

/// A target group, with the parameters that it was created with and the health of each target:
/// `{"State": "healthy"}`.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "named after the fields of AWS")]
pub struct TargetGroup {
    pub name: String,
    pub settings: Value,
    pub tags: Tags,
    pub attributes: Tags,
    pub health: Vec<Value>,
}

/// Everything that the account holds. A `Value` has the shape in which AWS shows the resource.
#[derive(Debug, Clone)]
pub struct State {
    /// The time, in seconds since 1970.
    pub now: i64,
    /// The most entries on a page of any list, where AWS would give more.
    pub page_size: usize,
    /// The listeners of the load balancer; the first is the environment's.
    pub listeners: Vec<Listener>,
    /// The rules of all listeners.
    pub rules: Vec<Rule>,
    /// How many rules were ever made, from which the next one gets its ARN.
    pub rules_made: usize,
    /// The quotas of the load balancer, by their name.
    pub limits: BTreeMap<String, usize>,
    /// The target groups.
    pub target_groups: Vec<TargetGroup>,
    /// The services, with `tags`, whatever their status.
    pub services: Vec<Value>,
    /// What is registered with Application Auto Scaling, by its resource id, with its `policies`.
    pub scalable_targets: BTreeMap<String, Value>,
    /// The tasks, with the name of their service or family in `group`.
    pub tasks: Vec<Value>,
    /// The first call of RunTask with each client token, and the ARN of the task that it started.
    pub run_requests: BTreeMap<String, (Value, String)>,
    /// Reasons for which the next calls of RunTask start nothing.
    pub run_failures: Vec<String>,
    /// The revisions, with `tags`, whatever their status.
    pub task_definitions: Vec<Value>,
    /// The images of the repository `test`: tag and digest.
    pub images: Vec<(String, String)>,
    /// The manifests of the images, by digest. One that is not here is that of a single image.
    pub manifests: BTreeMap<String, String>,
    /// The executions of the deploy machine, with their `input`.
    pub executions: Vec<Value>,
    /// The events of executions, the oldest first, by ARN.
    pub histories: BTreeMap<String, Vec<Value>>,
    /// The tokens of tasks that wait for an answer.
    pub task_tokens: BTreeSet<String>,
    /// Lines of the log group, by stream.
    pub logs: BTreeMap<String, Vec<String>>,
    /// The current version of each secret, by ARN.
    pub secrets: Tags,
    /// The version before that of each secret that was rotated, by ARN.
    pub previous_secrets: Tags,
    /// The parameters of Parameter Store, by name.
    pub parameters: BTreeMap<String, Value>,
    /// The state of each alarm of CloudWatch, by name: `ALARM`, or `ALARM since 1761568000`.
    pub alarms: BTreeMap<String, String>,
    /// The sums of each metric: its name and the values of its dimensions in alphabetical order, separated by spaces;
    /// each with the second at which its minute begins.
    pub metrics: BTreeMap<String, Vec<(i64, f64)>>,
    /// Whether CloudWatch has all of a metric, as in `Complete`.
    pub metric_status: String,
}

impl Default for State {
    /// An environment without a deployment.
    fn default() -> Self {
        let limits = [
            ("rules-per-application-load-balancer", 100),
            ("target-groups-per-application-load-balancer", 100),
        ];
        State {
            now: NOW,
            page_size: usize::MAX,
            listeners: vec![Listener {
                arn: LISTENER_ARN.to_owned(),
                default_actions: vec![fixed_response("503", "Nothing is deployed here yet.")],
            }],
            rules: Vec::new(),
            rules_made: 0,
            limits: limits.map(|(name, max)| (name.to_owned(), max)).into(),
            target_groups: Vec::new(),
            services: Vec::new(),
            scalable_targets: BTreeMap::new(),
            tasks: Vec::new(),
            run_requests: BTreeMap::new(),
            run_failures: Vec::new(),
            task_definitions: Vec::new(),
            images: Vec::new(),
            manifests: BTreeMap::new(),
            executions: Vec::new(),
            histories: BTreeMap::new(),
            task_tokens: BTreeSet::new(),
            logs: BTreeMap::new(),
            secrets: tags([(DRAIN_SECRET_ARN, "N0tForLogsOrAnswers")]),
            previous_secrets: Tags::new(),
            parameters: BTreeMap::new(),
            alarms: BTreeMap::new(),
            metrics: BTreeMap::new(),
            metric_status: "Complete".to_owned(),
        }
    }
}

impl State {
    /// Adds a whole deployment with two healthy tasks, which is not active: target group, a rule by
    /// header and one by cookie, service, task definition. The target group also carries these tags,
    /// each with a time five minutes ago.
    pub fn deploy(&mut self, id: &str, marks: &[&str]) {
        let number = self.task_definitions.len() as u32;
        self.add_target_group(id, own_tags(id));
        for mark in marks {
            self.tag(id, mark, "2025-10-27T12:25:00Z");
        }
        const AFFINITY: &str = "X-Pulse-Render-Affinity";
        let cookie = format!("*{AFFINITY}={id}*");
        for (priority, header, value) in [(100, AFFINITY, id), (20_100, "Cookie", &cookie)] {
            let by_header = json!({"HttpHeaderName": header, "Values": [value]});
            self.add_rule(priority + number, id, own_tags(id))
                .conditions = json!([{"Field": "http-header", "HttpHeaderConfig": by_header}]);
        }
        let revision = self.add_task_definition(own_tags(id));
        self.add_service(id, own_tags(id))["taskDefinition"] = revision.into();
    }

    /// Adds a target group with two healthy targets.
    pub fn add_target_group(&mut self, name: &str, tags: Tags) -> &mut TargetGroup {
        self.target_groups.push(TargetGroup {
            name: name.to_owned(),
            tags,
            health: vec![json!({"State": "healthy"}); 2],
            ..TargetGroup::default()
        });
        self.target_groups.last_mut().expect("one")
    }

    /// Adds a rule without conditions that forwards to the target group of that name.
    pub fn add_rule(&mut self, priority: u32, group: &str, tags: Tags) -> &mut Rule {
        self.rules_made += 1;
        self.rules.push(Rule {
            arn: rule_arn(&format!("rule-{}", self.rules_made)),
            listener_arn: LISTENER_ARN.to_owned(),
            priority,
            conditions: json!([]),
            actions: vec![forward(&[(group, 1)])],
            tags,
        });
        self.rules.last_mut().expect("one")
    }

    /// Adds a service with two running tasks, of which [`State::tasks`] knows nothing.
    pub fn add_service(&mut self, name: &str, tags: Tags) -> &mut Value {
        self.services.push(json!({
            "serviceName": name,
            "serviceArn": service_arn(name),
            "status": "ACTIVE",
            "taskDefinition": revision_arn(1),
            "desiredCount": 2,
            "runningCount": 2,
            "pendingCount": 0,
            "healthCheckGracePeriodSeconds": 120,
            "loadBalancers": [{"targetGroupArn": group_arn(name)}],
            "deployments": [{
                "id": "ecs-svc/1",
                "status": "PRIMARY",
                "rolloutState": "COMPLETED",
                "createdAt": NOW - 86_400,
            }],
            "createdAt": NOW - 86_400,
            "tags": ecs_tags(&tags),
        }));
        self.services.last_mut().expect("one")
    }

    /// Adds a running task of a service.
    pub fn add_task(&mut self, service: &str, address: &str) -> &mut Value {
        let number = self.tasks.len() + 1;
        self.tasks.push(json!({
            "taskArn": format!("arn:aws:ecs:us-east-1:1:task/test/t{number}"),
            "group": format!("service:{service}"),
            "lastStatus": "RUNNING",
            "desiredStatus": "RUNNING",
            "startedBy": "ecs-svc/1",
            "attachments": [{
                "type": "ElasticNetworkInterface",
                "details": [
                    {"name": "subnetId", "value": "subnet-1"},
                    {"name": "privateIPv4Address", "value": address},
                ],
            }],
        }));
        self.tasks.last_mut().expect("one")
    }

    /// Ends the newest task with that exit code of its container `app`, a minute after it was created. Its tags are gone.
    ///
    /// # Panics
    /// When there is no task.
    pub fn end_task(&mut self, exit_code: i32) -> &mut Value {
        let newest = self.tasks.len().checked_sub(1).expect("a task");
        self.end_task_at(newest, Some(exit_code))
    }

    /// The same for any task. Without an exit code, none of its containers has run.
    ///
    /// # Panics
    /// If that task does not exist.
    pub fn end_task_at(&mut self, index: usize, exit_code: Option<i32>) -> &mut Value {
        let task = &mut self.tasks[index];
        let ended = number(&task["createdAt"]) + 60;
        task["lastStatus"] = "STOPPED".into();
        task["desiredStatus"] = "STOPPED".into();
        task["startedAt"] = exit_code.map(|_| ended - 30).into();
        task["stoppedAt"] = ended.into();
        task["tags"] = json!([]);
        if task["stopCode"].is_null() {
            task["stopCode"] = "EssentialContainerExited".into();
            task["stoppedReason"] = "Essential container in task exited".into();
        }
        let containers = task["containers"].as_array_mut().expect("a list");
        for app in containers.iter_mut().filter(|it| it["name"] == "app") {
            app["exitCode"] = exit_code.into();
        }
        task
    }

    /// Adds an active revision of the family `test-app` and gives its ARN.
    pub fn add_task_definition(&mut self, tags: Tags) -> String {
        let arn = revision_arn(self.task_definitions.len() + 1);
        self.task_definitions.push(json!({
            "taskDefinitionArn": arn,
            "family": "test-app",
            "status": "ACTIVE",
            "registeredAt": self.now,
            "tags": ecs_tags(&tags),
        }));
        arn
    }

    /// Adds a running execution of the deploy machine.
    pub fn add_execution(&mut self, name: &str, input: &str) -> &mut Value {
        self.add_execution_of(DEPLOY_MACHINE_ARN, name, input)
    }

    /// An execution of a machine that runs.
    ///
    /// # Panics
    /// Never.
    pub fn add_execution_of(&mut self, machine: &str, name: &str, input: &str) -> &mut Value {
        self.executions.push(json!({
            "executionArn": format!("{}:{name}", machine.replace("stateMachine", "execution")),
            "stateMachineArn": machine,
            "name": name,
            "status": "RUNNING",
            "startDate": self.now,
            "input": input,
        }));
        self.executions.last_mut().expect("one")
    }

    /// The target group of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn group(&mut self, name: &str) -> &mut TargetGroup {
        let group = self.target_groups.iter_mut().find(|it| it.name == name);
        group.unwrap_or_else(|| panic!("there is no target group {name}"))
    }

    /// Whether there is a target group of that name.
    pub fn has_group(&self, name: &str) -> bool {
        self.target_groups.iter().any(|group| group.name == name)
    }

    /// Tags the target group of that name.
    pub fn tag(&mut self, group: &str, key: &str, value: &str) {
        self.group(group).tags.insert(key.into(), value.into());
    }

    /// Whether the target group of that name carries this tag.
    pub fn has_tag(&mut self, group: &str, key: &str) -> bool {
        self.group(group).tags.contains_key(key)
    }

    /// Makes all targets of the group fail their health checks.
    pub fn fail_health_checks(&mut self, group: &str) {
        for target in &mut self.group(group).health {
            *target = json!({"State": "unhealthy"});
        }
    }

    /// The service of that name, whatever its status.
    ///
    /// # Panics
    /// When there is none.
    pub fn service(&mut self, name: &str) -> &mut Value {
        let found = self
            .services
            .iter_mut()
            .find(|it| it["serviceName"] == name);
        found.unwrap_or_else(|| panic!("there is no service {name}"))
    }

    /// Makes the environment's listener forward to the target group of that name alone.
    pub fn activate(&mut self, group: &str) {
        self.listeners[0].default_actions = vec![forward(&[(group, 1)])];
    }

    /// Puts an action before what the listener's default action does.
    pub fn put_before(&mut self, action: Value) {
        let actions = &mut self.listeners[0].default_actions;
        for routing in &mut *actions {
            routing["Order"] = "2".into();
        }
        actions.insert(0, action);
    }

    /// The names of the target groups that the listener's default actions forward to.
    pub fn active(&self) -> Vec<String> {
        let arns = crate::elb::named(&self.listeners[0].default_actions);
        arns.iter().map(|arn| name_in(arn)).collect()
    }

    /// The priorities of all rules, lowest first.
    pub fn priorities(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.rules.iter().map(|rule| rule.priority).collect();
        all.sort_unstable();
        all
    }

    /// The revisions that are active.
    pub fn active_revisions(&self) -> usize {
        let all = self.task_definitions.iter();
        all.filter(|it| it["status"] == "ACTIVE").count()
    }

    /// Carries a call out.
    pub(crate) fn answer(&mut self, call: &Call) -> Result<Value, Error> {
        let params = &call.params;
        let operation = call.operation.as_str();
        let answer = crate::elb::answer(self, operation, params)
            .or_else(|| crate::ecs::answer(self, operation, params))
            .or_else(|| crate::autoscaling::answer(self, operation, params))
            .or_else(|| crate::cloudwatch::answer(self, operation, params))
            .or_else(|| crate::other::answer(self, operation, params));
        answer.unwrap_or_else(|| panic!("memory-aws does not know {operation}"))
    }

    /// The page of a list that a caller asks for, as the answer of a call. AWS gives `default` entries to
    /// a caller that does not ask for a number, and at most `most`.
    pub(crate) fn page<T>(
        &self,
        params: &Value,
        field: &str,
        (default, most): (usize, usize),
        all: impl IntoIterator<Item = T>,
        show: impl Fn(T) -> Value,
    ) -> Result<Value, Error> {
        let is_json = field.starts_with(char::is_lowercase);
        let [size, token, next] = if is_json {
            ["maxResults", "nextToken", "nextToken"]
        } else {
            ["PageSize", "Marker", "NextMarker"]
        };
        let asked = match &params[size] {
            Value::Null => default,
            size => number(size) as usize,
        };
        if !(1..=most).contains(&asked) {
            let message = format!("a page holds 1 to {most} entries, not {asked}");
            return Err(Error::new("ValidationError", message));
        }
        let (start, size) = (number(&params[token]) as usize, asked.min(self.page_size));
        let mut rest = all.into_iter().skip(start);
        let page: Vec<Value> = rest.by_ref().take(size).map(show).collect();
        let more = rest.next().map(|_| (start + size).to_string());
        Ok(json!({field: page, next: more}))
    }
}

/// A number, written as JSON or as text.
pub(crate) fn number(value: &Value) -> i64 {
    let text = || text(value).parse().ok();
    value.as_i64().or_else(text).unwrap_or_default()
}

/// The texts of a JSON list.
pub fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// Tags as ECS shows them.
pub fn ecs_tags(tags: &Tags) -> Value {
    let tags = tags.iter();
    tags.map(|(key, value)| json!({"key": key, "value": value}))
        .collect()
}

/// The name in an ARN: of a target group, the part before the hash.
pub(crate) fn name_in(arn: &str) -> String {
    let from_end = usize::from(arn.contains(":targetgroup/"));
    arn.rsplit('/').nth(from_end).unwrap_or_default().to_owned()
}
