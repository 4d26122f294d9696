//! Wrong input from the console is refused before anything is created.

use anyhow::Result;
use scenarios::TestEnvironment;
use serde_json::{Value, json};

/// On an environment without a deployment.
pub async fn wrong_input_is_refused_and_its_field_is_named(env: &TestEnvironment) -> Result<()> {
    // The image exists, so that only the input can be refused.
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;
    let table: [(&str, Value, &[&str]); 15] = [
        (
            "unknown-field",
            json!({"deploymentId": id, "count": 3}),
            &["unknown field `count`"],
        ),
        (
            "misspelt-field",
            json!({"deploymentID": id}),
            &["unknown field `deploymentID`", "`deploymentId`"],
        ),
        (
            "other-environment",
            json!({"deploymentId": id.replace("test-", "prod-")}),
            &["`deploymentId`", "environment prod"],
        ),
        (
            "impossible-date",
            json!({"deploymentId": "test-20250230-122112Z"}),
            &["`deploymentId`", "does not exist"],
        ),
        (
            "far-future",
            json!({"deploymentId": "test-20991027-122112Z"}),
            &["`deploymentId`", "in the future"],
        ),
        (
            "no-id",
            json!({"deploymentId": "latest"}),
            &["`deploymentId`", "not a deployment id"],
        ),
        (
            "text-for-a-number",
            json!({"deploymentId": id, "desiredCount": "2"}),
            &["`desiredCount`", "\"2\""],
        ),
        (
            "number-for-a-text",
            json!({"deploymentId": 20251027}),
            &["`deploymentId`", "string"],
        ),
        (
            "nothing-to-run",
            json!({"deploymentId": id, "desiredCount": 0}),
            &["`desiredCount`", "between 1 and"],
        ),
        (
            "no-fargate-size",
            json!({"deploymentId": id, "cpu": 256, "memory": 700}),
            &["`memory`", "512"],
        ),
        (
            "reserved-variable",
            json!({"deploymentId": id, "environment": {"PORT": "80"}}),
            &["`environment.PORT`", "leave it out"],
        ),
        ("missing-id", json!({}), &["missing field `deploymentId`"]),
        (
            "the-consoles-example",
            json!({"Comment": "Insert your JSON here"}),
            &["unknown field `Comment`", "`deploymentId`"],
        ),
        ("not-an-object", json!([id]), &["must be a JSON object"]),
        (
            "oversized-field",
            json!({"deploymentId": id, "x".repeat(200_000): 3}),
            &[
                "unknown field `xxx",
                "x…x",
                "expected one of `deploymentId`",
            ],
        ),
    ];
    let before = env.cloud.calls().newest();
    for (name, input, words) in &table {
        let ended = env.start_by_hand(name, &input.to_string()).await?;
        assert_eq!(ended.ending(), "Refused", "{name}: {}", ended.cause);
        assert_eq!(ended.error, "Refused", "{name}");
        for word in *words {
            assert!(
                ended.cause.contains(word),
                "{name}: `{word}` is not in: {}",
                ended.cause
            );
        }
        // A plain message, without JSON around it or a stack trace after it.
        assert!(
            ended.cause.starts_with("InvalidInputError: "),
            "{name}: {}",
            ended.cause
        );
        assert!(ended.cause.len() < 1000, "{name}: {}", ended.cause.len());
        assert!(
            !ended.cause.contains(['\n', '\\']),
            "{name}: {}",
            ended.cause
        );
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    assert_eq!(env.active().await?, None);
    assert_eq!(env.remaining(&id).await?, Vec::<String>::new());
    Ok(())
}
