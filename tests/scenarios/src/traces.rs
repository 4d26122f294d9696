//! Everything that can be read in an environment with all read permissions but those for the secret
//! itself.

use anyhow::{Context, Result, ensure};
use http::Method;
use localcloud::ministack::Client;
use serde_json::{Value, json};

use crate::TestEnvironment;
use crate::queues::{dead_letters, take};

/// A place and its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    /// The kind of place, such as `log`.
    pub kind: &'static str,
    /// The name or the ARN of the place.
    pub name: String,
    /// All of its text, as AWS returns it.
    pub text: String,
}

/// Reads every place, and takes the messages of `queues`, which are given by kind and URL.
///
/// Most answers are read from the wire, because the SDK's types hide sensitive fields when they are
/// printed.
///
/// # Errors
/// When a service does not answer, or has more than one page where only one is expected.
pub async fn read(env: &TestEnvironment, queues: &[(&'static str, &str)]) -> Result<Vec<Trace>> {
    // Through the gateway, which has the services and the tasks.
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
    for (kind, queue) in queues {
        for message in take(env, queue).await? {
            traces.add(kind, *queue, message.to_string());
        }
    }
    let dead_letters = dead_letters(env).await?;
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
    async fn pages(&self, service: &str, target: &str, mut request: Value) -> Result<Vec<Value>> {
        let mut pages: Vec<Value> = Vec::new();
        loop {
            let page = self
                .client
                .json(service, target, request.clone())
                .await
                .with_context(|| format!("{target} {request}"))?;
            // GetLogEvents repeats its token at the end.
            let token = page
                .get("nextToken")
                .or_else(|| page.get("nextForwardToken"))
                .filter(|token| !token.is_null() && **token != request["nextToken"])
                .cloned();
            pages.push(page);
            match token {
                Some(token) => request["nextToken"] = token,
                None => return Ok(pages),
            }
        }
    }

    /// The definitions of all machines, and the input, output and history of all their executions.
    async fn executions(&mut self) -> Result<()> {
        let states = |operation| format!("AWSStepFunctions.{operation}");
        let list = states("ListStateMachines");
        let machines = self.pages("states", &list, json!({})).await?;
        for machine in strings(&machines, "stateMachines", "stateMachineArn") {
            let request = json!({"stateMachineArn": machine});
            let describe = states("DescribeStateMachine");
            for page in self.pages("states", &describe, request.clone()).await? {
                self.add("machine", &machine, page.to_string());
            }
            let listed = self
                .pages("states", &states("ListExecutions"), request)
                .await?;
            for execution in strings(&listed, "executions", "executionArn") {
                let request = json!({"executionArn": execution});
                for (kind, operation) in [
                    ("execution", "DescribeExecution"),
                    ("history", "GetExecutionHistory"),
                ] {
                    let target = states(operation);
                    for page in self.pages("states", &target, request.clone()).await? {
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
                let request =
                    json!({"logGroupName": group, "logStreamName": stream, "startFromHead": true});
                for page in self.pages("logs", &logs("GetLogEvents"), request).await? {
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

    /// Every revision with its tags, including those that are no longer active.
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
                let request = json!({"taskDefinition": arn, "include": ["TAGS"]});
                let describe = ecs("DescribeTaskDefinition");
                for page in self.pages("ecs", &describe, request).await? {
                    self.add("task definition", &arn, page.to_string());
                }
            }
        }
        Ok(())
    }

    async fn services_and_tasks(&mut self) -> Result<()> {
        let cluster = &self.env.name;
        let request = json!({"cluster": cluster});
        let listed = self.pages("ecs", &ecs("ListServices"), request).await?;
        for arn in listed.iter().flat_map(|page| texts(&page["serviceArns"])) {
            let request = json!({"cluster": cluster, "services": [arn], "include": ["TAGS"]});
            for page in self.pages("ecs", &ecs("DescribeServices"), request).await? {
                self.add("service", &arn, page.to_string());
            }
        }
        for status in ["RUNNING", "STOPPED"] {
            let request = json!({"cluster": cluster, "desiredStatus": status});
            let listed = self.pages("ecs", &ecs("ListTasks"), request).await?;
            for arn in listed.iter().flat_map(|page| texts(&page["taskArns"])) {
                let request = json!({"cluster": cluster, "tasks": [arn], "include": ["TAGS"]});
                for page in self.pages("ecs", &ecs("DescribeTasks"), request).await? {
                    self.add("task", &arn, page.to_string());
                }
            }
        }
        Ok(())
    }

    /// Target groups and rules with their tags. Their types hide no field when they are printed.
    async fn load_balancing(&mut self) -> Result<()> {
        let elb = &self.env.elb;
        let listener = self.env.listener_arn().await?;
        let groups = elb.describe_target_groups().send().await?;
        let rules = elb.describe_rules().listener_arn(listener).send().await?;
        ensure!(
            groups.next_marker().is_none() && rules.next_marker().is_none(),
            "the rules or target groups do not fit a page"
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

    /// The configuration of the functions, which includes their environment variables.
    async fn functions(&mut self) -> Result<()> {
        let path = "/2015-03-31/functions/?MaxItems=50";
        let listed = self
            .client
            .rest("lambda", Method::GET, path, Default::default())
            .await?;
        let listed: Value = serde_json::from_slice(&listed)?;
        ensure!(
            listed["NextMarker"].as_str().unwrap_or_default().is_empty(),
            "the functions do not fit a page"
        );
        for function in listed["Functions"].as_array().into_iter().flatten() {
            let name = function["FunctionName"].as_str().unwrap_or_default();
            self.add("function", name, function.to_string());
        }
        Ok(())
    }

    /// The stacks with their parameters and outputs, templates, resources and events.
    async fn stacks(&mut self) -> Result<()> {
        for stack in ["baseline", "pipeline"] {
            let name = format!("{}-{stack}", self.env.name);
            for operation in [
                "DescribeStacks",
                "DescribeStackResources",
                "DescribeStackEvents",
                "GetTemplate",
            ] {
                let request = [("Action", operation), ("StackName", name.as_str())];
                let answer = self.client.query("cloudformation", "2010-05-15", &request);
                let answer = answer.await.with_context(|| operation.to_owned())?;
                self.add("stack", format!("{name} {operation}"), answer);
            }
        }
        Ok(())
    }

    /// The description of the secret, which does not include its value.
    async fn secret_itself(&mut self) -> Result<()> {
        let request = json!({"SecretId": secret_name(self.env)});
        let target = "secretsmanager.DescribeSecret";
        for page in self.pages("secretsmanager", target, request).await? {
            self.add("secret", secret_name(self.env), page.to_string());
        }
        Ok(())
    }
}

/// The drain secret, read as the account's root user.
///
/// # Errors
/// When the secret does not exist.
pub async fn drain_secret(env: &TestEnvironment) -> Result<String> {
    let request = json!({"SecretId": secret_name(env)});
    let target = "secretsmanager.GetSecretValue";
    let client = env.cloud.client();
    let secret = client.json("secretsmanager", target, request).await?;
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

/// The texts of one field of all items of a list, over all pages.
fn strings(pages: &[Value], list: &str, field: &str) -> Vec<String> {
    pages
        .iter()
        .filter_map(|page| page[list].as_array())
        .flatten()
        .filter_map(|item| item[field].as_str().map(str::to_owned))
        .collect()
}
