//! What an environment leaves to be read: everything that somebody can find who may look at all of
//! it, though not at the secret itself.

use anyhow::{Context, Result, ensure};
use http::Method;
use localcloud::ministack::Client;
use serde_json::{Value, json};

use crate::queues::take;
use crate::{TestEnvironment, queues};

/// One place and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    /// What sort of place it is, such as `log`.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// All of its text, as AWS answers it.
    pub text: String,
}

/// Reads every place. `heard` are queues that were told of events and of failures; their messages are
/// taken.
///
/// The answers are taken as they come over the wire: the SDK's types leave out, when they are
/// printed, just what is looked for here.
///
/// # Errors
/// When a service cannot be asked, or has more than a page where no more is expected.
pub async fn read(env: &TestEnvironment, heard: &[(&'static str, &str)]) -> Result<Vec<Trace>> {
    // By the gateway, which has the services and tasks.
    let client = Client::new(env.cloud.registry());
    let mut traces = Traces {
        env,
        client,
        found: Vec::new(),
    };
    traces.executions().await?;
    traces.logs().await?;
    traces.task_definitions().await?;
    traces.services_and_tasks().await?;
    traces.load_balancing().await?;
    traces.functions().await?;
    traces.stacks().await?;
    traces.secret_itself().await?;
    for (kind, queue) in heard {
        for message in take(env, queue).await? {
            traces.add(kind, *queue, message.to_string());
        }
    }
    let dead_letters = queues::dead_letters(env).await?;
    for message in take(env, &dead_letters).await? {
        traces.add("dead letter", &dead_letters, message.to_string());
    }
    for event in env.cloud.push_events().emitted() {
        traces.add("push event", &event.tag, event.to_json().to_string());
    }
    Ok(traces.found)
}

struct Traces<'a> {
    env: &'a TestEnvironment,
    client: Client,
    found: Vec<Trace>,
}

impl Traces<'_> {
    fn add(&mut self, kind: &'static str, name: impl Into<String>, text: impl Into<String>) {
        self.found.push(Trace {
            kind,
            name: name.into(),
            text: text.into(),
        });
    }

    /// All pages of a JSON service's answer.
    async fn pages(&self, service: &str, target: &str, mut ask: Value) -> Result<Vec<Value>> {
        let mut pages: Vec<Value> = Vec::new();
        loop {
            let page = self
                .client
                .json(service, target, ask.clone())
                .await
                .with_context(|| format!("{target} {ask}"))?;
            // GetLogEvents repeats its token at the end.
            let token = page
                .get("nextToken")
                .or_else(|| page.get("nextForwardToken"))
                .filter(|token| !token.is_null() && **token != ask["nextToken"])
                .cloned();
            pages.push(page);
            match token {
                Some(token) => ask["nextToken"] = token,
                None => return Ok(pages),
            }
        }
    }

    /// Input, output and the whole history of all executions of all machines.
    async fn executions(&mut self) -> Result<()> {
        let states = |operation| format!("AWSStepFunctions.{operation}");
        let list = states("ListStateMachines");
        let machines = self.pages("states", &list, json!({})).await?;
        for machine in strings(&machines, "stateMachines", "stateMachineArn") {
            let ask = json!({"stateMachineArn": machine});
            let describe = states("DescribeStateMachine");
            for page in self.pages("states", &describe, ask.clone()).await? {
                self.add("machine", &machine, page.to_string());
            }
            let listed = self.pages("states", &states("ListExecutions"), ask).await?;
            for execution in strings(&listed, "executions", "executionArn") {
                let ask = json!({"executionArn": execution});
                for (kind, operation) in [
                    ("execution", "DescribeExecution"),
                    ("history", "GetExecutionHistory"),
                ] {
                    let target = states(operation);
                    for page in self.pages("states", &target, ask.clone()).await? {
                        self.add(kind, &execution, page.to_string());
                    }
                }
            }
        }
        Ok(())
    }

    /// Every line of every stream of every log group.
    async fn logs(&mut self) -> Result<()> {
        let logs = |operation| format!("Logs_20140328.{operation}");
        let groups = self
            .pages("logs", &logs("DescribeLogGroups"), json!({}))
            .await?;
        for group in strings(&groups, "logGroups", "logGroupName") {
            let streams = self
                .pages(
                    "logs",
                    &logs("DescribeLogStreams"),
                    json!({"logGroupName": group}),
                )
                .await?;
            for stream in strings(&streams, "logStreams", "logStreamName") {
                let ask =
                    json!({"logGroupName": group, "logStreamName": stream, "startFromHead": true});
                for page in self.pages("logs", &logs("GetLogEvents"), ask).await? {
                    let lines: Vec<_> = page["events"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|event| event["message"].as_str())
                        .collect();
                    self.add("log", format!("{group} {stream}"), lines.join("\n"));
                }
            }
        }
        Ok(())
    }

    /// Every revision with its tags, those that are not active any more too.
    async fn task_definitions(&mut self) -> Result<()> {
        for status in ["ACTIVE", "INACTIVE"] {
            let listed = self
                .pages(
                    "ecs",
                    &ecs("ListTaskDefinitions"),
                    json!({"status": status}),
                )
                .await?;
            for arn in listed
                .iter()
                .flat_map(|page| texts(&page["taskDefinitionArns"]))
            {
                let ask = json!({"taskDefinition": arn, "include": ["TAGS"]});
                for page in self
                    .pages("ecs", &ecs("DescribeTaskDefinition"), ask)
                    .await?
                {
                    self.add("task definition", &arn, page.to_string());
                }
            }
        }
        Ok(())
    }

    async fn services_and_tasks(&mut self) -> Result<()> {
        let cluster = &self.env.name;
        let ask = json!({"cluster": cluster});
        let listed = self.pages("ecs", &ecs("ListServices"), ask).await?;
        for arn in listed.iter().flat_map(|page| texts(&page["serviceArns"])) {
            let ask = json!({"cluster": cluster, "services": [arn], "include": ["TAGS"]});
            for page in self.pages("ecs", &ecs("DescribeServices"), ask).await? {
                self.add("service", &arn, page.to_string());
            }
        }
        for status in ["RUNNING", "STOPPED"] {
            let ask = json!({"cluster": cluster, "desiredStatus": status});
            let listed = self.pages("ecs", &ecs("ListTasks"), ask).await?;
            for arn in listed.iter().flat_map(|page| texts(&page["taskArns"])) {
                let ask = json!({"cluster": cluster, "tasks": [arn], "include": ["TAGS"]});
                for page in self.pages("ecs", &ecs("DescribeTasks"), ask).await? {
                    self.add("task", &arn, page.to_string());
                }
            }
        }
        Ok(())
    }

    /// Target groups and rules with their tags; none of their types hides anything.
    async fn load_balancing(&mut self) -> Result<()> {
        let elb = &self.env.elb;
        let listener = self.env.listener_arn().await?;
        let groups = elb.describe_target_groups().send().await?;
        let rules = elb.describe_rules().listener_arn(listener).send().await?;
        ensure!(
            groups.next_marker().is_none() && rules.next_marker().is_none(),
            "more rules or target groups than a page holds"
        );
        let mut arns = Vec::new();
        for group in groups.target_groups() {
            arns.extend(group.target_group_arn());
            self.found.push(Trace {
                kind: "target group",
                name: group.target_group_name().unwrap_or_default().to_owned(),
                text: format!("{group:?}"),
            });
        }
        for rule in rules.rules() {
            arns.extend(rule.rule_arn().filter(|_| rule.is_default() != Some(true)));
            self.found.push(Trace {
                kind: "rule",
                name: rule.priority().unwrap_or_default().to_owned(),
                text: format!("{rule:?}"),
            });
        }
        for arn in arns {
            let tags = elb.describe_tags().resource_arns(arn).send().await?;
            self.found.push(Trace {
                kind: "tags",
                name: arn.to_owned(),
                text: format!("{:?}", tags.tag_descriptions()),
            });
        }
        Ok(())
    }

    /// The functions' settings, among them their variables.
    async fn functions(&mut self) -> Result<()> {
        let path = "/2015-03-31/functions/?MaxItems=50";
        let listed = self
            .client
            .rest("lambda", Method::GET, path, Default::default())
            .await?;
        let listed: Value = serde_json::from_slice(&listed)?;
        ensure!(
            listed["NextMarker"].as_str().unwrap_or_default().is_empty(),
            "more functions than a page holds"
        );
        for function in listed["Functions"].as_array().into_iter().flatten() {
            let name = function["FunctionName"].as_str().unwrap_or_default();
            self.add("function", name, function.to_string());
        }
        Ok(())
    }

    /// The stacks with parameters and outputs, their templates, resources and events.
    async fn stacks(&mut self) -> Result<()> {
        for stack in ["baseline", "pipeline"] {
            let name = format!("{}-{stack}", self.env.name);
            for operation in [
                "DescribeStacks",
                "DescribeStackResources",
                "DescribeStackEvents",
                "GetTemplate",
            ] {
                let ask = [("Action", operation), ("StackName", name.as_str())];
                let answer = self.client.query("cloudformation", "2010-05-15", &ask);
                let answer = answer.await.with_context(|| operation.to_owned())?;
                self.add("stack", format!("{name} {operation}"), answer);
            }
        }
        Ok(())
    }

    /// What Secrets Manager says of the secret to who may not read it.
    async fn secret_itself(&mut self) -> Result<()> {
        let ask = json!({"SecretId": secret_name(self.env)});
        let target = "secretsmanager.DescribeSecret";
        for page in self.pages("secretsmanager", target, ask).await? {
            self.add("secret", secret_name(self.env), page.to_string());
        }
        Ok(())
    }
}

/// The drain secret, read as the account's root.
///
/// # Errors
/// When there is none.
pub async fn drain_secret(env: &TestEnvironment) -> Result<String> {
    let ask = json!({"SecretId": secret_name(env)});
    let target = "secretsmanager.GetSecretValue";
    let client = env.cloud.client();
    let secret = client.json("secretsmanager", target, ask).await?;
    let secret = secret["SecretString"].as_str().context("no secret")?;
    Ok(secret.to_owned())
}

fn secret_name(env: &TestEnvironment) -> String {
    format!("{}/drain-secret", env.name)
}

fn ecs(operation: &str) -> String {
    format!("AmazonEC2ContainerServiceV20141113.{operation}")
}

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// A field of all items of a list, over all pages.
fn strings(pages: &[Value], list: &str, field: &str) -> Vec<String> {
    pages
        .iter()
        .filter_map(|page| page[list].as_array())
        .flatten()
        .filter_map(|item| item[field].as_str().map(str::to_owned))
        .collect()
}
