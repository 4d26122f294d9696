//! Mistakes in the commands of documents, all of which one check reports.

use contract::Repository;
use contract::checks::commands;

/// Commands with a mistake, and words of the report.
const MISTAKES: [(&str, &str); 14] = [
    (
        "aws elbv3 describe-listeners --listener-arns a",
        "argument command: Invalid choice",
    ),
    (
        "aws elbv2 describe-listener --listener-arns a",
        "argument operation: Invalid choice",
    ),
    (
        "aws elbv2 describe-listener",
        "argument operation: Invalid choice",
    ),
    (
        "aws ecs list-services --clusters test",
        "Unknown options: --clusters",
    ),
    (
        "aws elbv2 remove-tags --resource-arns a",
        "the following arguments are required: --tag-keys",
    ),
    (
        "aws elbv2 modify-listener --listener-arn a --default-actions Type=forward,TargetGroup=b",
        "Unknown parameter in DefaultActions[0]: \"TargetGroup\"",
    ),
    (
        "aws stepfunctions describe-execution --execution-arn a --query '[status, reason]'",
        "DescribeExecution answers nothing for the query [status, reason]",
    ),
    (
        "aws ecs describe-services --services \"$service\"",
        "service: unbound variable",
    ),
    (
        "aws ecs list-services --cluster test | xargs aws ecs describe-service --services",
        "argument operation: Invalid choice",
    ),
    (
        "aws stepfunctions start-execution --state-machine-arn arn:aws:states:eu-west-1:123456789012:stateMachine:test-cleanup --input \"{\\\"dry\\\": true}\"",
        "unknown field `dry`",
    ),
    (
        "aws stepfunctions start-execution --state-machine-arn arn:aws:states:eu-west-1:123456789012:stateMachine:test-clean --input '{}'",
        "test-clean is started, which is not a machine",
    ),
    (
        "aws lambda invoke --function-name test-delete-deployment --payload '{\"deploymentId\": \"a\", \"forced\": true}' /dev/null",
        "test-delete-deployment has no field forced",
    ),
    (
        "aws lambda invoke --function-name test-delete --payload '{}' /dev/null",
        "the function test-delete does not exist",
    ),
    (
        "aws elbv2 add-tags --resource-arns a --tags Key=pulse:protect,Value=yes",
        "no function reads the tag \"pulse:protect\"",
    ),
];

#[test]
fn each_mistake_in_a_command_is_reported() {
    let repository = Repository::read().unwrap().without("docs/");
    let document = |number: usize| format!("docs/mistake-{number}.md");
    let mistaken =
        MISTAKES
            .iter()
            .enumerate()
            .fold(repository, |repository, (number, (command, _))| {
                repository.with(&document(number), format!("```sh\n{command}\n```\n"))
            });
    let problems = commands::aws_cli(&mistaken).unwrap();
    for (number, (command, words)) in MISTAKES.iter().enumerate() {
        let name = document(number);
        let found = problems.iter().find(|problem| problem.starts_with(&name));
        let found = found.unwrap_or_else(|| panic!("nothing is reported of {command}"));
        assert!(found.contains(words), "{command}: {found}");
    }
    // And that the commands of the other documents are missing.
    assert_eq!(problems.len(), MISTAKES.len() + 2, "{problems:#?}");
}

#[test]
fn documents_without_commands_are_reported() {
    let none = Repository::read().unwrap().without("docs/");
    let problems = commands::aws_cli(&none).unwrap();
    for words in ["have only", "no command shows"] {
        let found = problems.iter().any(|problem| problem.contains(words));
        assert!(found, "{problems:?}");
    }
}
