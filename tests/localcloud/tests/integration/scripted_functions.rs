//! Functions whose replies a test chooses, which a state machine invokes by the names in its input.

use localcloud::LocalCloud;
use localcloud::scripted_function::{Reply, ScriptedFunction};
use serde_json::{Value, json};

use crate::cloud::{self, end_of_execution, machine, states};

/// A machine that invokes the function which its input names.
struct Invoker {
    cloud: LocalCloud,
    machine: Value,
}

impl Invoker {
    /// Its role may invoke the functions whose names begin so.
    async fn create(prefix: &str) -> Self {
        let cloud = cloud::start().await;
        let client = cloud.client();
        let role = cloud::role(client, "invoker", "states.amazonaws.com").await;
        let functions = format!("arn:aws:lambda:us-east-1:000000000000:function:{prefix}*");
        let policy = json!({"Statement": [{
            "Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": functions,
        }]});
        let put = [
            ("Action", "PutRolePolicy"),
            ("RoleName", "invoker"),
            ("PolicyName", "policy"),
            ("PolicyDocument", &policy.to_string()),
        ];
        let put = client.query("iam", "2010-05-08", &put).await;
        put.expect("put");
        let definition = json!({"QueryLanguage": "JSONata", "StartAt": "Name", "States": {
            "Name": {"Type": "Pass", "Assign": {"name": "{% $states.input.name %}"}, "Next": "Invoke"},
            "Invoke": {
                "Type": "Task",
                "Resource": "arn:aws:states:::lambda:invoke",
                "Arguments": {"FunctionName": "{% $name %}", "Payload": "{% $states.input.event %}"},
                "Output": "{% $states.result.Payload %}",
                "End": true,
            },
        }});
        let machine = machine(client, "invoker", &role, &definition).await;
        Self { cloud, machine }
    }

    /// What the function answers, or the name and the cause of the error.
    async fn invoke(&self, name: &str, event: Value) -> Result<Value, (String, String)> {
        let client = self.cloud.client();
        let input = json!({"name": name, "event": event}).to_string();
        let start = json!({"stateMachineArn": self.machine, "input": input});
        let started = states(client, "StartExecution", start).await;
        let ended = end_of_execution(client, &started).await;
        let text = |name: &str| ended[name].as_str().unwrap_or_default().to_owned();
        if ended["status"] == "SUCCEEDED" {
            Ok(serde_json::from_str(&text("output")).expect("JSON"))
        } else {
            Err((text("error"), text("cause")))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_replies_as_its_test_chooses() {
    let invoker = Invoker::create("team-").await;
    let created = ScriptedFunction::create(invoker.cloud.client(), "team-hook").await;
    let hook = created.expect("created");
    assert_eq!(hook.events().expect("read"), Vec::<Value>::new());
    let ask = async |number: u32| invoker.invoke(hook.name(), json!({"number": number})).await;
    assert_eq!(ask(0).await, Ok(Value::Null));

    let progress = json!({"hookStatus": "IN_PROGRESS", "callBackDelay": 5});
    let success = json!({"hookStatus": "SUCCEEDED"});
    let replies = [
        Reply::Answer(progress.clone()),
        Reply::Error {
            kind: "TeamError",
            message: "no database",
        },
        Reply::Crash,
        Reply::Silence,
        Reply::Answer(success.clone()),
    ];
    hook.reply(&replies).expect("written");
    assert_eq!(ask(1).await, Ok(progress));
    let (error, cause) = ask(2).await.expect_err("an error");
    assert_eq!(error, "TeamError");
    let cause: Value = serde_json::from_str(&cause).expect("JSON");
    assert_eq!(cause["errorMessage"], "no database");
    let (error, _) = ask(3).await.expect_err("a crash");
    assert_eq!(error, "Runtime.ExitError");
    let (error, cause) = ask(4).await.expect_err("a timeout");
    assert_eq!(error, "Sandbox.Timedout", "{cause}");
    assert_eq!(ask(5).await, Ok(success.clone()));
    assert_eq!(ask(6).await, Ok(success));
    let events: Vec<_> = (0..=6).map(|number| json!({"number": number})).collect();
    assert_eq!(hook.events().expect("read"), events);
    invoker.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_an_expression_names_needs_permission_before_it_is_looked_for() {
    let invoker = Invoker::create("team-").await;
    let client = invoker.cloud.client();
    let ours = ScriptedFunction::create(client, "team-hook").await;
    let theirs = ScriptedFunction::create(client, "hook").await;
    let prefix = "arn:aws:lambda:us-east-1:000000000000:function";
    let error = async |name: &str| invoker.invoke(name, json!({})).await.expect_err(name);
    for name in ["hook", "missing"] {
        for by in [name.to_owned(), format!("{prefix}:{name}")] {
            let (error, cause) = error(&by).await;
            assert_eq!(error, "Lambda.AWSLambdaException");
            let part = format!("lambda:InvokeFunction on resource: {prefix}:{name} because");
            assert!(cause.contains(&part), "{cause}");
        }
    }
    for by in ["team-missing".to_owned(), format!("{prefix}:team-missing")] {
        let (error, cause) = error(&by).await;
        assert_eq!(error, "Lambda.ResourceNotFoundException");
        let found = format!("Function not found: {prefix}:team-missing ");
        assert!(cause.starts_with(&found), "{cause}");
    }
    for by in ["team-hook".to_owned(), format!("{prefix}:team-hook")] {
        assert_eq!(invoker.invoke(&by, json!({})).await, Ok(Value::Null));
    }
    assert_eq!(ours.expect("created").events().expect("read").len(), 2);
    let none = theirs.expect("created").events().expect("read");
    assert_eq!(none, Vec::<Value>::new());
    invoker.cloud.stop().await;
}
