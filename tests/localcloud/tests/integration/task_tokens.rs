//! Tasks of state machines that wait until somebody answers with their token.

use std::time::Duration;

use aws_sdk_ecs::config::Credentials;
use localcloud::{LocalCloud, Options, time_scale::TimeScale};
use serde_json::{Value, json};

use crate::cloud::{self, aws, end_of_execution, machine, root, states, user_with_policy};

const TOPIC: &str = "arn:aws:sns:us-east-1:000000000000:approvals";
const PUBLISH: &str = "arn:aws:states:::sns:publish.waitForTaskToken";

/// A local cloud with the topic, and with a machine that publishes there and waits for the token.
struct Approval {
    cloud: LocalCloud,
    machine: Value,
}

impl Approval {
    /// The machine gives up after as many seconds as its input says, once more after that if `retry` is given, and
    /// ends with what it got and the milliseconds that it took.
    async fn create(time_scale: f64, retry: Value) -> Self {
        let options = Options {
            time_scale: TimeScale(time_scale),
            ..Options::default()
        };
        let cloud = LocalCloud::start(options).await.expect("it starts");
        let client = cloud.client();
        let create = [("Action", "CreateTopic"), ("Name", "approvals")];
        let created = client.query("sns", "2010-03-31", &create).await;
        created.expect("created");
        let role = cloud::role(client, "approval", "states.amazonaws.com").await;
        let message = json!({"token": "{% $states.context.Task.Token %}", "id": "test-1"});
        let passed = "$millis() - $began";
        let definition = json!({"QueryLanguage": "JSONata", "StartAt": "Begin", "States": {
            "Begin": {
                "Type": "Pass",
                "Assign": {"began": "{% $millis() %}", "seconds": "{% $states.input.seconds %}"},
                "Next": "Approve",
            },
            "Approve": {
                "Type": "Task",
                "Resource": PUBLISH,
                "Arguments": {"TopicArn": TOPIC, "Subject": "Approve test-1", "Message": message},
                "TimeoutSeconds": "{% $seconds %}",
                "Retry": retry,
                "Catch": [{
                    "ErrorEquals": ["States.ALL"],
                    "Next": "End",
                    "Output": format!("{{% $merge([$states.errorOutput, {{'passed': {passed}}}]) %}}"),
                }],
                "Output": "{% $states.result %}",
                "Next": "End",
            },
            "End": {"Type": "Succeed"},
        }});
        let machine = machine(client, "approval", &role, &definition).await;
        let approval = Self { cloud, machine };
        approval.allow(&["sns:Publish"], TOPIC).await;
        approval
    }

    /// Lets the role of the machine do this, and nothing else.
    async fn allow(&self, actions: &[&str], resource: &str) {
        let statement = json!({"Effect": "Allow", "Action": actions, "Resource": resource});
        self.allow_all(&[statement]).await;
    }

    async fn allow_all(&self, statements: &[Value]) {
        let policy = json!({"Statement": statements}).to_string();
        let put = [
            ("Action", "PutRolePolicy"),
            ("RoleName", "approval"),
            ("PolicyName", "policy"),
            ("PolicyDocument", &policy),
        ];
        let put = self.cloud.client().query("iam", "2010-05-08", &put).await;
        put.expect("put");
    }

    async fn start(&self, seconds: Value) -> Value {
        let input = json!({"seconds": seconds}).to_string();
        let start = json!({"stateMachineArn": self.machine, "input": input});
        states(self.cloud.client(), "StartExecution", start).await
    }

    /// The output of an execution.
    async fn end(&self, started: &Value) -> Value {
        let ended = end_of_execution(self.cloud.client(), started).await;
        let output = ended["output"].as_str().expect("an output");
        serde_json::from_str(output).expect("JSON")
    }

    /// The events of this type in the history.
    async fn events(&self, started: &Value, kind: &str) -> Vec<Value> {
        let which = json!({"executionArn": started["executionArn"]});
        let history = states(self.cloud.client(), "GetExecutionHistory", which).await;
        let events = history["events"].as_array().expect("events").iter();
        events
            .filter(|event| event["type"] == kind)
            .cloned()
            .collect()
    }

    /// The tokens of all attempts, by which the topic was asked too.
    async fn tokens(&self, started: &Value) -> Vec<String> {
        let scheduled = self.events(started, "TaskScheduled").await;
        let token = |event: &Value| {
            let details = &event["taskScheduledEventDetails"];
            assert_eq!(details["resourceType"], "sns");
            assert_eq!(details["resource"], "publish.waitForTaskToken");
            let parameters = details["parameters"].as_str().expect("a text");
            let parameters: Value = serde_json::from_str(parameters).expect("JSON");
            assert_eq!(parameters["TopicArn"], TOPIC);
            let token = parameters["Message"]["token"].as_str();
            token.expect("a token").to_owned()
        };
        scheduled.iter().map(token).collect()
    }

    /// Waits until the topic was asked, and returns the token.
    async fn token(&self, started: &Value) -> String {
        while self.events(started, "TaskSubmitted").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.tokens(started).await.remove(0)
    }

    /// Answers with the AWS CLI. Returns the code of the error.
    async fn answer(&self, who: &Credentials, arguments: &[&str]) -> Result<(), String> {
        let arguments = [&["stepfunctions"], arguments].concat();
        match aws(&self.cloud, who, &arguments).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let code = error.split(['(', ')']).nth(1);
                Err(code.unwrap_or(&error).to_owned())
            }
        }
    }

    async fn succeed(&self, token: &str, output: &str) -> Result<(), String> {
        let arguments = ["send-task-success", "--task-token", token, "--task-output"];
        self.answer(&root(), &[&arguments[..], &[output]].concat())
            .await
    }

    async fn fail(&self, token: &str) -> Result<(), String> {
        let arguments = [
            "send-task-failure",
            "--task-token",
            token,
            "--error",
            "Refused",
            "--cause",
            "not today",
        ];
        self.answer(&root(), &arguments).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_one_answer_with_the_token_that_is_in_its_history() {
    let approval = Approval::create(0.05, json!([])).await;
    let wrong = Err("InvalidToken".to_owned());
    let over = Err("TaskTimedOut".to_owned());
    assert_eq!(approval.succeed("nobody's", "{}").await, wrong);
    assert_eq!(approval.fail("nobody's").await, wrong);

    let started = approval.start(json!(90_000)).await;
    let token = approval.token(&started).await;
    let refused = approval.succeed(&token, "{not JSON").await;
    assert_eq!(refused, Err("InvalidOutput".to_owned()));
    let too_long = format!("\"{}\"", "x".repeat(262_143));
    let send = json!({"taskToken": token, "output": too_long});
    let client = approval.cloud.client();
    let refused = client.json("states", "AWSStepFunctions.SendTaskSuccess", send);
    assert_eq!(refused.await.expect_err("too long").code, "InvalidOutput");
    assert_eq!(
        approval.succeed(&token, r#"{"by": "somebody"}"#).await,
        Ok(())
    );
    assert_eq!(approval.succeed(&token, "{}").await, over);
    assert_eq!(approval.fail(&token).await, over);
    assert_eq!(approval.end(&started).await, json!({"by": "somebody"}));
    assert_eq!(approval.fail(&token).await, over);

    let started = approval.start(json!(90_000)).await;
    let token = approval.token(&started).await;
    assert_eq!(approval.fail(&token).await, Ok(()));
    assert_eq!(approval.succeed(&token, "{}").await, over);
    let output = approval.end(&started).await;
    assert_eq!(output["Error"], "Refused");
    assert_eq!(output["Cause"], "not today");

    // Of two answers at once, one counts.
    let started = approval.start(json!(90_000)).await;
    let token = approval.token(&started).await;
    let send = async |by: &str| {
        let output = json!({"by": by}).to_string();
        let send = json!({"taskToken": token, "output": output});
        let target = "AWSStepFunctions.SendTaskSuccess";
        let sent = client.json("states", target, send).await;
        sent.map(|_| by.to_owned()).map_err(|error| error.code)
    };
    let (first, second) = tokio::join!(send("first"), send("second"));
    let (by, late) = match (first, second) {
        (Ok(by), Err(late)) | (Err(late), Ok(by)) => (by, late),
        both => panic!("{both:?}"),
    };
    assert_eq!(late, "TaskTimedOut");
    assert_eq!(approval.end(&started).await, json!({"by": by}));
    approval.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_may_be_an_expression_is_scaled_and_each_attempt_has_a_token_of_its_own() {
    let retry =
        json!([{"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1, "IntervalSeconds": 1}]);
    // The two attempts take two seconds each. If they were not scaled, they would outlast every test.
    let approval = Approval::create(0.001, retry).await;
    let started = approval.start(json!(2_000)).await;
    let output = approval.end(&started).await;
    assert_eq!(output["Error"], "States.Timeout", "{output}");
    let passed = output["passed"].as_f64().expect("milliseconds");
    assert!(passed >= 2.0 * 2_000_000.0, "{output}");
    assert_eq!(approval.events(&started, "TaskTimedOut").await.len(), 2);
    let tokens = approval.tokens(&started).await;
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1]);
    for token in tokens {
        let late = approval.succeed(&token, "{}").await;
        assert_eq!(late, Err("TaskTimedOut".to_owned()));
    }
    let started = approval.start(json!("soon")).await;
    let output = approval.end(&started).await;
    assert_eq!(output["Error"], "States.QueryEvaluationError", "{output}");
    approval.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_is_stopped_waits_no_longer() {
    let approval = Approval::create(0.05, json!([])).await;
    let started = approval.start(json!(90_000)).await;
    let token = approval.token(&started).await;
    let stop = json!({"executionArn": started["executionArn"]});
    states(approval.cloud.client(), "StopExecution", stop).await;
    let late = approval.succeed(&token, "{}").await;
    assert_eq!(late, Err("TaskTimedOut".to_owned()));
    let ended = end_of_execution(approval.cloud.client(), &started).await;
    assert_eq!(ended["status"], "ABORTED");
    approval.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_publishes_only_to_topics_and_with_keys_that_its_role_allows() {
    let approval = Approval::create(0.05, json!([])).await;
    let client = approval.cloud.client();
    let error = async || {
        let started = approval.start(json!(1)).await;
        let output = approval.end(&started).await;
        output["Error"].as_str().unwrap_or_default().to_owned()
    };
    let published = "States.Timeout";
    approval
        .allow(&["sns:Publish"], &format!("{TOPIC}-2"))
        .await;
    assert_eq!(error().await, "SNS.AuthorizationErrorException");
    approval.allow(&["sns:Publish"], TOPIC).await;
    assert_eq!(error().await, published);

    let created = client.json("kms", "TrentService.CreateKey", json!({}));
    let key = created.await.expect("created")["KeyMetadata"].take();
    let set_key = async |id: &str| {
        let set = [
            ("Action", "SetTopicAttributes"),
            ("TopicArn", TOPIC),
            ("AttributeName", "KmsMasterKeyId"),
            ("AttributeValue", id),
        ];
        let set = client.query("sns", "2010-03-31", &set).await;
        set.expect("set");
    };
    set_key("alias/aws/sns").await;
    assert_eq!(error().await, published);
    set_key(key["KeyId"].as_str().expect("an id")).await;
    let publishes = json!({"Effect": "Allow", "Action": "sns:Publish", "Resource": TOPIC});
    let key_allows = |actions: Value| {
        let through = json!({"StringEquals": {"kms:ViaService": "sns.us-east-1.amazonaws.com"}});
        json!({"Effect": "Allow", "Action": actions, "Resource": key["Arn"], "Condition": through})
    };
    for (actions, expected) in [
        (json!("kms:Describe*"), "SNS.KMSAccessDeniedException"),
        (
            json!("kms:GenerateDataKey*"),
            "SNS.KMSAccessDeniedException",
        ),
        (json!("kms:Decrypt"), "SNS.KMSAccessDeniedException"),
        (json!(["kms:GenerateDataKey*", "kms:Decrypt"]), published),
    ] {
        let statements = [publishes.clone(), key_allows(actions.clone())];
        approval.allow_all(&statements).await;
        assert_eq!(error().await, expected, "{actions}");
    }
    let delete = [("Action", "DeleteTopic"), ("TopicArn", TOPIC)];
    let deleted = client.query("sns", "2010-03-31", &delete).await;
    deleted.expect("deleted");
    assert_eq!(error().await, "SNS.NotFoundException");
    approval.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_or_reads_the_history_needs_the_permission() {
    let approval = Approval::create(0.05, json!([])).await;
    let started = approval.start(json!(90_000)).await;
    let token = approval.token(&started).await;
    let execution = started["executionArn"].as_str().expect("an ARN");
    let calls = [
        (
            "states:GetExecutionHistory",
            execution,
            vec!["get-execution-history", "--execution-arn", execution],
        ),
        (
            "states:SendTaskFailure",
            "*",
            vec!["send-task-failure", "--task-token", "nobody's"],
        ),
        (
            "states:SendTaskSuccess",
            "*",
            vec![
                "send-task-success",
                "--task-token",
                &token,
                "--task-output",
                "{}",
            ],
        ),
    ];
    let machines = "arn:aws:states:us-east-1:000000000000:stateMachine:*";
    for (number, (action, resource, arguments)) in calls.iter().enumerate() {
        let may = |resource: &str| json!({"Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]});
        let denied = may(machines);
        let denied = user_with_policy(&approval.cloud, &format!("denied-{number}"), &denied).await;
        let refused = approval.answer(&denied, arguments).await;
        assert_eq!(refused, Err("AccessDeniedException".to_owned()), "{action}");
        let allowed = may(resource);
        let allowed =
            user_with_policy(&approval.cloud, &format!("allowed-{number}"), &allowed).await;
        let answered = approval.answer(&allowed, arguments).await;
        let expected = match *action {
            "states:SendTaskFailure" => Err("InvalidToken".to_owned()),
            _ => Ok(()),
        };
        assert_eq!(answered, expected, "{action}");
    }
    assert_eq!(approval.end(&started).await, json!({}));
    approval.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_a_token_whose_function_cannot_be_invoked_fails_at_once() {
    let cloud = cloud::start().await;
    let client = cloud.client();
    let role = cloud::role(client, "machine", "states.amazonaws.com").await;
    let definition = json!({"QueryLanguage": "JSONata", "StartAt": "Ask", "States": {"Ask": {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
        "Arguments": {"FunctionName": "missing", "Payload": "{% $states.context.Task.Token %}"},
        "End": true,
    }}});
    let machine = machine(client, "asks", &role, &definition).await;
    let start = json!({"stateMachineArn": machine, "input": "{}"});
    let started = states(client, "StartExecution", start).await;
    let ended = end_of_execution(client, &started).await;
    let error = ended["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("Lambda."), "{ended}");
    cloud.stop().await;
}
