//! Every check reports the mistakes that it exists for. Each case makes one mistake in a copy of the
//! repository in memory.

use contract::checks::{
    Check, baseline, documents, events, functions, inputs, limits, machines, payloads, permissions,
    pipeline, policies, promises, references, schemas, variables,
};
use contract::{Repository, Template, calls};

use super::expressions;

const PIPELINE: &str = "infra/pipeline.yaml";
const BASELINE: &str = "infra/baseline.yaml";
const MACHINE: &str = "statemachine/deploy.asl.json";
const CLEANUP: &str = "statemachine/cleanup.asl.json";
const ROLLBACK: &str = "statemachine/rollback.asl.json";
const EVENTS: &str = "docs/events.md";
const OPERATIONS: &str = "docs/operations.md";

/// A part of the payload with which a failed rollback takes its marks back.
macro_rules! taken_back {
    ($restoring_since:literal) => {
        concat!(
            "\n          \"replaced\": \"{% [$target.replaced] %}\", ",
            "\"wasRolledBack\": \"{% $target.wasRolledBack %}\",",
            "\n          \"replacedDeploymentId\": ",
            "\"{% $exists($target.replacedDeploymentId) ? $target.replacedDeploymentId : null %}\",",
            "\n          \"restoringSince\": ",
            $restoring_since
        )
    };
}

/// The repository with the first `from` in a file replaced.
fn edited(path: &str, from: &str, to: &str) -> Repository {
    let repository = Repository::read().unwrap();
    let text = repository.file(path).unwrap_or_else(|| panic!("no {path}"));
    assert!(
        text.contains(from),
        "{path} has no `{from}` to make a mistake in"
    );
    let text = text.replacen(from, to, 1);
    repository.with(path, text)
}

/// The check reports the mistake in a sentence with these words, which it does not report without it.
fn notices(check: Check, mistaken: &Repository, words: &str) {
    let before = check(&Repository::read().unwrap()).unwrap();
    let after = check(mistaken).unwrap();
    assert!(
        after
            .iter()
            .any(|problem| problem.contains(words) && !before.contains(problem)),
        "nothing about `{words}` in\n- {}\n",
        after.join("\n- ")
    );
}

macro_rules! mistakes {
    ($($sentence:ident: $check:path, $path:expr, $from:expr => $to:expr, $words:expr;)*) => {$(
        #[test]
        fn $sentence() {
            notices($check, &edited($path, $from, $to), $words);
        }
    )*};
}

mistakes! {
    a_package_of_another_name: functions::names, "functions/create-service/Cargo.toml",
        "name = \"create-service\"" => "name = \"make-service\"", "not called create-service";
    a_binary_of_another_name: functions::names, "functions/create-service/Cargo.toml",
        "[dependencies]" => "[[bin]]\nname = \"x\"\n[dependencies]", "another name";
    a_step_that_depends_on_another_one: functions::dependencies, "functions/create-service/Cargo.toml",
        "[dependencies]" => "[dependencies]\nswitch-traffic = { path = \"../switch-traffic\" }", "create-service depends on the step switch-traffic";
    a_step_that_decides_by_itself_what_is_active: functions::active, "functions/validate-deployment/src/lib.rs",
        "default_action.active()" => "groups.iter().max_by_key(|it| it.weight())", "weighs target groups";
    a_step_under_another_name: functions::dependencies, "functions/create-service/Cargo.toml",
        "[dependencies]" => "[dependencies]\nother = { package = \"switch-traffic\", path = \"../switch-traffic\" }", "depends on the step switch-traffic";
    a_field_that_is_misspelt: payloads::fields, "statemachine/deploy.asl.json",
        "\"onlyIfNeverLive\": true" => "\"onlyIfNeverLived\": true", "has no field onlyIfNeverLived";
    a_verdict_that_nothing_answers: payloads::words, "statemachine/cleanup.asl.json",
        "$drained.verdict = 'gone'" => "$drained.verdict = 'vanished'", "nothing answers vanished";
    a_state_that_a_plan_does_not_have: payloads::words, "statemachine/cleanup.asl.json",
        "['draining', 'deleting']" => "['draining', 'drained_']", "nothing answers drained_";
    an_undo_of_what_was_live: expressions::payloads, MACHINE,
        "\"onlyIfNeverLive\": true" => "\"onlyIfNeverLive\": false", "[\"UndoDeployment\",";
    an_undo_that_does_not_say_whose_it_is: expressions::payloads, MACHINE,
        "\"onlyIfNeverLive\": true,\n          \"execution\": \"{% $states.context.Execution.Id %}\"" => "\"onlyIfNeverLive\": true",
        "[\"UndoDeployment\",";
    a_repair_that_is_not_called_one: expressions::payloads, CLEANUP,
        "\"repair\": true, " => "", "[\"SwitchTraffic\",";
    a_repair_that_always_rolls_back: expressions::payloads, CLEANUP,
        "\"rollBack\": \"{% $found.repair.rollBack %}\"" => "\"rollBack\": true", "[\"SwitchTraffic\",";
    a_cleanup_that_deletes_a_candidate_that_went_live: expressions::payloads, CLEANUP,
        "\"{% $item.state = 'candidate' or $item.targetGroupArn = null %}\"" => "false", "[\"DeleteDeployment\",";
    a_cleanup_that_deletes_what_a_rollback_brought_back: expressions::payloads, CLEANUP,
        "\"{% $item.state in ['draining', 'deleting'] or $item.action = 'drain' %}\"" => "\"{% $item.state = 'deleting' %}\"",
        "[\"DeleteDeployment\",";
    a_cleanup_that_deletes_more_than_rules: expressions::payloads, CLEANUP,
        " \"onlyRules\": \"{% $item.action = 'unroute' %}\"," => "", "[\"DeleteDeployment\",";
    a_cleanup_that_ignores_running_executions: expressions::payloads, CLEANUP,
        ",\n                \"stateMachine\": \"${DeployStateMachineArn}\"" => "", "[\"DeleteDeployment\",";
    a_rollback_that_switches_like_a_deployment: expressions::payloads, ROLLBACK,
        "\"rollBack\": true, \"replaced\"" => "\"rollBack\": false, \"replaced\"", "[\"SwitchTraffic\",";
    a_rollback_that_forgets_an_earlier_one: expressions::payloads, ROLLBACK,
        ", \"wasRolledBack\": \"{% $target.wasRolledBack %}\"" => "", "[\"SwitchTraffic\",";
    a_failed_rollback_that_forgets_an_earlier_one: expressions::payloads, ROLLBACK,
        "\n          \"replaced\": \"{% [$target.replaced] %}\", \"wasRolledBack\": \"{% $target.wasRolledBack %}\","
            => "\n          \"replaced\": \"{% [$target.replaced] %}\",", "[\"TakeMarksBack\",";
    a_failed_rollback_that_takes_its_marks_for_set: expressions::payloads, ROLLBACK,
        "\"marked\": \"{% $failure.state = 'SwitchTraffic' %}\"," => "\"marked\": true,", "[\"TakeMarksBack\",";
    a_failed_rollback_that_switches_once_more: expressions::payloads, ROLLBACK,
        "\"takeBack\": true, " => "", "[\"TakeMarksBack\",";
    a_failed_rollback_that_does_not_know_its_own_mark: expressions::payloads, ROLLBACK,
        taken_back!("\"{% $exists($target.restoringSince) ? $target.restoringSince : null %}\"") => taken_back!("null"), "[\"TakeMarksBack\",";
    a_rollback_that_replaces_what_came_after_it: expressions::payloads, ROLLBACK,
        "\"{% $merge([$states.result.Payload, {'replaced': [$target.replaced], 'replacedDeploymentId': $target.replacedDeploymentId, 'wasRolledBack': $target.wasRolledBack, 'evict': $target.evict}]) %}\""
            => "\"{% $states.result.Payload %}\"", "[\"SwitchTraffic\",";
    a_rollback_that_waits_as_if_its_tasks_were_warm: expressions::payloads, ROLLBACK,
        "\"{% $not($target.restored) %}\"" => "true", "[\"CheckTargetHealth\",";
    a_rollback_that_evicts_against_its_input: expressions::payloads, ROLLBACK,
        "$target.evict = true and " => "", "[\"EvictVisitors\",";
    a_cleanup_that_deletes_what_was_made_live_since_its_eviction: expressions::payloads, CLEANUP,
        "\"onlyIfEvicted\": \"{% $item.state = 'evicted' %}\"" => "\"onlyIfEvicted\": false", "[\"DeleteDeployment\",";
    a_deployment_that_does_not_look_for_a_freeze: expressions::payloads, MACHINE,
        "\"Default\": \"CheckGate\"" => "\"Default\": \"SwitchTraffic\"", "[\"SwitchTraffic\",";
    a_version_that_drains_under_its_scaler: expressions::payloads, CLEANUP,
        ", \"deregister\": true" => "", "[\"DeregisterScaling\",";
    a_cleanup_that_registers_again_and_again: expressions::payloads, CLEANUP,
        "{\"onlyIfMissing\": true}" => "{\"onlyIfMissing\": false}", "[\"RegisterScaling\",";
    a_cleanup_that_makes_rules_of_what_a_rollback_has_taken_back: expressions::payloads, CLEANUP,
        ", \"onlyIfActive\": true" => "", "[\"CreateListenerRule\",";
    an_eviction_that_gives_up_while_a_switch_is_in_flight: machines::retries, ROLLBACK,
        "\"MaxAttempts\": 6, \"BackoffRate\": 2, \"MaxDelaySeconds\": 30\n              }" => "\"MaxAttempts\": 2, \"BackoffRate\": 2, \"MaxDelaySeconds\": 30\n              }",
        "may give up while a switch is in flight";
    a_target_group_that_forgets_how_it_is_scaled: expressions::payloads, MACHINE,
        "\"scaling\": \"{% $deployment.scaling %}\"" => "\"scaling\": null", "[\"CreateTargetGroup\",";
    a_role_that_scales_more_than_services_of_ecs: permissions::resources, PIPELINE,
        "application-autoscaling:RegisterScalableTarget\n                Resource: \"*\"\n                Condition:\n                  StringEquals:\n                    \"application-autoscaling:service-namespace\": ecs\n                    \"application-autoscaling:scalable-dimension\": ecs:service:DesiredCount\n"
            => "application-autoscaling:RegisterScalableTarget\n                Resource: \"*\"\n                Condition:\n                  StringEquals:\n                    \"application-autoscaling:service-namespace\": ecs\n",
        "allows application-autoscaling:RegisterScalableTarget on every resource";
    a_role_that_makes_other_roles_of_services: policies::exact, PIPELINE,
        "role/aws-service-role/ecs.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_ECSService" => "role/aws-service-role/*",
        "allows iam:CreateServiceLinkedRole";
    a_candidate_that_is_as_small_as_it_asks_for: expressions::payloads, MACHINE,
        "\"desiredCount\": \"{% $size.desiredCount %}\",\n          \"graceSeconds\"" => "\"desiredCount\": \"{% $deployment.desiredCount %}\",\n          \"graceSeconds\"",
        "[\"CreateService\",";
    a_count_that_forgets_what_the_input_says: expressions::payloads, MACHINE,
        "\"parity\": \"{% $deployment.parity %}\"" => "\"parity\": true, \"switched\": false", "[\"ChooseCount\",";
    a_rollback_that_waits_for_size_before_rescue: expressions::payloads, ROLLBACK,
        ",\n          \"switched\": true" => "", "[\"RaiseAfterSwitch\",";
    a_health_check_that_does_not_say_how_long_it_waited: expressions::payloads, MACHINE,
        "\"waitedSeconds\": \"{% $max([0, $floor($deployment.health.timeoutSeconds - ($healthDeadline - $millis()) / 1000)]) %}\"" => "\"waitedSeconds\": 0",
        "[\"CheckTargetHealth\",";
    a_payload_without_what_its_function_needs: expressions::inputs, CLEANUP,
        ", \"targetGroupArn\": \"{% $item.targetGroupArn %}\"" => "", "missing field `targetGroupArn`";
    a_payload_with_a_text_for_a_number: expressions::inputs, MACHINE,
        "\"cpu\": \"{% $deployment.cpu %}\"" => "\"cpu\": \"{% $string($deployment.cpu) %}\"", "cpu";
    a_step_without_run: functions::shape, "functions/switch-traffic/src/lib.rs",
        "pub async fn run(" => "pub async fn go(", "no `pub async fn run`";
    a_main_that_serves_something_else: functions::shape, "functions/switch-traffic/src/main.rs",
        "switch_traffic::run(" => "switch_traffic::walk(", "does not serve";
    a_long_main: functions::shape, "functions/switch-traffic/src/main.rs",
        "async fn main" => "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nasync fn main", "more than 30";
    a_variable_that_is_not_set: functions::environment, PIPELINE,
        "VPC_ID:" => "THE_VPC:", "create-target-group reads VPC_ID";
    a_variable_that_no_function_reads: functions::environment, PIPELINE,
        "VPC_ID:" => "SPARE: x\n        VPC_ID:", "sets SPARE, which no function reads";
    a_variable_for_a_function_that_does_not_read_it: functions::environment, PIPELINE,
        "STATE_MACHINE_ARN:" => "EXTRA: x\n          STATE_MACHINE_ARN:", "sets EXTRA for start-deployment";
    a_function_that_reads_the_environment_past_its_settings: functions::environment,
        "functions/switch-traffic/src/lib.rs", "async fn tag(" => "// std::env::var\nasync fn tag(", "past Baseline";

    a_function_of_another_name: pipeline::resources, PIPELINE,
        "FunctionName: !Sub ${Environment}-create-service" => "FunctionName: !Sub ${Environment}-service", "the FunctionName is";
    a_function_from_another_package: pipeline::resources, PIPELINE,
        "lambda/create-service/bootstrap" => "lambda/switch-traffic/bootstrap", "the CodeUri is";
    a_log_group_without_retention: pipeline::resources, PIPELINE,
        "RetentionInDays" => "RetentionDays", "forever";
    a_function_that_logs_elsewhere: pipeline::resources, PIPELINE,
        "LogGroup: !Ref CreateServiceLogGroup" => "LogGroup: !Ref SwitchTrafficLogGroup", "the log group is";
    a_shared_role: pipeline::roles, PIPELINE,
        "Role: !GetAtt CreateServiceRole.Arn" => "Role: !GetAtt SwitchTrafficRole.Arn", "share the role";
    a_parameter_without_a_description: pipeline::parameters, BASELINE,
        "    Description: Name under" => "    Why: Name under", "DomainName has no Description";
    a_placeholder_that_is_not_filled_in: pipeline::machines, PIPELINE,
        "        HealthTimeoutSeconds: !Ref HealthTimeoutSeconds\n" => "", "HealthTimeoutSeconds is in the machine but not";
    a_substitution_that_is_not_used: pipeline::machines, PIPELINE,
        "HealthTimeoutSeconds: !Ref" => "Spare: x\n        HealthTimeoutSeconds: !Ref", "Spare is in DefinitionSubstitutions but not";
    a_placeholder_with_another_function: pipeline::machines, PIPELINE,
        "CreateServiceFunctionArn: !GetAtt CreateServiceFunction.Arn" => "CreateServiceFunctionArn: !GetAtt SwitchTrafficFunction.Arn",
        "not the ARN of CreateServiceFunction";
    a_function_that_the_machine_may_not_invoke: pipeline::machines, PIPELINE,
        "                  - !GetAtt CreateServiceFunction.Arn\n" => "", "CreateServiceFunction is in the machine but not";
    a_function_that_the_machine_need_not_invoke: pipeline::machines, PIPELINE,
        "- !GetAtt CreateServiceFunction.Arn" => "- !GetAtt CreateServiceFunction.Arn\n                  - !GetAtt StartDeploymentFunction.Arn",
        "StartDeploymentFunction is in what its role may invoke but not";
    a_function_that_nothing_runs: pipeline::uses, PIPELINE,
        "Arn: !GetAtt StartDeploymentFunction.Arn" => "Arn: !GetAtt DeadLetterQueue.Arn", "runs start-deployment";
    a_function_that_outlasts_its_state: limits::timeouts, PIPELINE,
        "Timeout: 50" => "Timeout: 60", "no longer than its function";
    a_function_that_ends_before_its_calls: limits::timeouts, PIPELINE,
        "Timeout: 30" => "Timeout: 15", "no later than one of its calls";
    a_state_that_may_wait_forever: limits::timeouts, MACHINE,
        "\"TimeoutSeconds\": 60," => "", "may wait forever";
    a_health_timeout_that_leaves_no_time_to_undo: limits::deadlines, PIPELINE,
        "MaxValue: 3600" => "MaxValue: 36000", "deploy: an execution may take";
    an_undo_that_outlasts_its_machine: limits::deadlines, MACHINE,
        "$undoDeadline : $millis() + 600000" => "$undoDeadline : $millis() + 60000000", "deploy: an execution may take";
    a_loop_without_a_deadline: limits::deadlines, MACHINE,
        "$millis() >= $healthDeadline" => "false", "WaitForTargets belongs to a loop without a deadline";
    a_loop_that_does_not_wait: limits::deadlines, MACHINE,
        "\"Default\": \"WaitForTargets\"" => "\"Default\": \"CheckTargetHealth\"", "a loop has no Wait state";
    a_function_that_cannot_stop_before_lambda_kills_it: limits::timeouts, PIPELINE,
        "Timeout: 30" => "Timeout: 16", "no later than one of its calls";
    a_function_whose_cold_start_outlasts_its_state: limits::timeouts, PIPELINE,
        "Timeout: 50" => "Timeout: 51", "10 s to start and 51 s to run";
    a_drain_that_cannot_ask_every_task: limits::drain, PIPELINE,
        "20 s for a thousand. Less than the 60 s of its state, as above.\n      Timeout: 50"
            => "20 s for a thousand. Less than the 60 s of its state, as above.\n      Timeout: 35", "asking 1000 tasks may take 36 s";
    a_step_that_is_tried_past_the_end_of_its_machine: limits::deadlines, MACHINE,
        "\"TimeoutSeconds\": 60," => "\"TimeoutSeconds\": 3600,", "deploy: an execution may take";
    a_deployment_that_checks_too_often: limits::history, MACHINE,
        "\"Seconds\": 5," => "\"Seconds\": 1,", "deploy: an execution may have";
    a_cleanup_that_checks_too_often: limits::history, CLEANUP,
        "\"Seconds\": 20," => "\"Seconds\": 1,", "cleanup: an execution may have";
    a_cleanup_of_too_many_at_once: limits::history, CLEANUP,
        "\"MaxConcurrency\": 5," => "\"MaxConcurrency\": 80,", "cleanup: an execution may have";

    a_wildcard_action: permissions::actions, PIPELINE,
        "Action: states:StartExecution" => "Action: states:*", "allows states:*";
    every_action_but_one: permissions::actions, PIPELINE,
        "Action: states:StartExecution" => "Action: []\n                NotAction: iam:PassRole", "NotAction";
    any_resource_without_need: permissions::resources, PIPELINE,
        "Action: elasticloadbalancing:CreateRule\n                Resource: !Ref ListenerArn"
            => "Action: elasticloadbalancing:CreateRule\n                Resource: \"*\"",
        "CreateRule on every resource";
    any_cluster: permissions::resources, PIPELINE,
        "Action: ecs:ListTasks\n                Resource: \"*\"\n                Condition:\n                  ArnEquals: { \"ecs:cluster\""
            => "Action: ecs:ListTasks\n                Resource: \"*\"\n                Condition:\n                  ArnEquals: { \"aws:SourceArn\"",
        "ListTasks in every cluster";
    a_statement_without_a_comment: permissions::comments, PIPELINE,
        "# Allows finding the image, its digest and its platforms." => "", "ValidateDeploymentRole): no comment";
    an_action_that_is_missing: permissions::calls, PIPELINE,
        "Action: elasticloadbalancing:ModifyListener" => "Action: elasticloadbalancing:ModifyRule", "ModifyListener is in what it calls but not";
    an_action_of_another_service: permissions::calls, PIPELINE,
        "Action: ecs:ListTasks" => "Action: batch:ListTasks", "operation ecs:ListTasks is in what it calls but not";
    an_action_that_is_not_called: permissions::calls, PIPELINE,
        "- ecr:DescribeImages" => "- ecr:DescribeImages\n                  - ecr:ListImages", "ListImages is in what ValidateDeploymentRole allows but not";
    a_function_that_cannot_write_its_log: permissions::what_aws_needs, PIPELINE,
        "                  - logs:PutLogEvents\n" => "", "StartDeploymentRole does not allow logs:PutLogEvents";
    a_function_that_cannot_leave_a_dead_letter: permissions::what_aws_needs, PIPELINE,
        "Action: sqs:SendMessage" => "Action: sqs:ReceiveMessage", "StartDeploymentRole does not allow sqs:SendMessage";
    a_function_without_a_network_interface: permissions::what_aws_needs, PIPELINE,
        "                  - ec2:CreateNetworkInterface\n" => "", "SmokeTestRole does not allow ec2:CreateNetworkInterface";
    a_function_whose_code_manages_network_interfaces: permissions::what_aws_needs, PIPELINE,
        "function:${Environment}-drain-deployment\"" => "function:${Environment}-switch-traffic\"", "DrainDeploymentRole does not deny ec2:CreateNetworkInterface";
    a_machine_that_cannot_write_its_log: permissions::what_aws_needs, PIPELINE,
        "                  - logs:CreateLogDelivery\n" => "", "DeployStateMachineRole does not allow logs:CreateLogDelivery";
    a_new_call_without_permission: permissions::calls, "functions/switch-traffic/src/lib.rs",
        "let mut previous = None;" => "let mut previous = None; self.elb.delete_rule().send().await;", "DeleteRule is in what it calls but not";

    a_role_that_is_passed_to_anything: policies::passed_roles, PIPELINE,
        "Resource: !Ref BaseRoleArns\n            Condition:\n              StringEquals: { \"iam:PassedToService\": ecs-tasks.amazonaws.com }\n" => "Resource: !Ref BaseRoleArns\n", "(BaseRolesPolicy) passes roles to more than tasks";
    a_role_that_is_passed_to_another_service: policies::passed_roles, PIPELINE,
        "\"iam:PassedToService\": ecs-tasks.amazonaws.com" => "\"iam:PassedToService\": ec2.amazonaws.com", "(RegisterTaskDefinitionRole) passes roles to more than tasks";
    any_role_for_tasks: policies::passed_roles, PIPELINE,
        "Resource: !Ref BaseRoleArns" => "Resource: !Sub arn:${AWS::Partition}:iam::${AWS::AccountId}:role/team-*", "not for the roles of BaseRoleArns alone";
    base_roles_that_nobody_has_named: policies::passed_roles, PIPELINE,
        "Condition: HasBaseRoles" => "Condition: HasFailureEmail", "not for the roles of BaseRoleArns alone";
    a_release_of_any_task_definition: policies::exact, PIPELINE,
        "Action: ecs:RunTask\n                Resource: !Sub \"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:task-definition/${Environment}-release:*\""
            => "Action: ecs:RunTask\n                Resource: !Sub \"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:task-definition/*\"",
        "(RunReleaseRole) allows ecs:RunTask";
    a_release_without_its_base_roles: policies::passed_roles, PIPELINE,
        "        - !Ref RunReleaseRole\n" => "", "the role RunReleaseRole is in what passes roles but not";
    tags_of_a_release_that_only_its_number_allows: permissions::tags_of_creations, PIPELINE,
        "task-definition/${Environment}-release\"\n" => "task-definition/${Environment}-release:1\"\n", "the tags of RegisterTaskDefinition lack";
    fresh_tasks_without_their_base_roles: policies::passed_roles, PIPELINE,
        "        - !Ref RestoreDeploymentRole\n" => "", "the role RestoreDeploymentRole is in what passes roles but not";
    a_dead_letter_that_the_queue_refuses: policies::senders, PIPELINE,
        "[!GetAtt ImagePushedRule.Arn, !GetAtt FailureRule.Arn]" => "[!GetAtt FailureRule.Arn]", "refuses what ImagePushedRule cannot deliver";
    an_alarm_that_the_topic_refuses: policies::senders, PIPELINE,
        "Principal: { Service: cloudwatch.amazonaws.com }\n            Action: sns:Publish" => "Principal: { Service: cloudtrail.amazonaws.com }\n            Action: sns:Publish", "FailureTopic refuses what";
    an_event_that_the_topic_refuses: policies::senders, PIPELINE,
        "Principal: { Service: events.amazonaws.com }\n            Action: sns:Publish" => "Principal: { Service: events.amazonaws.com }\n            Action: sns:Subscribe", "FailureTopic refuses what FailureRule";
    a_key_that_alarms_may_not_use: policies::senders, PIPELINE,
        "Principal: { Service: cloudwatch.amazonaws.com }\n            Action:\n              - kms:Decrypt" => "Principal: { Service: cloudwatch.amazonaws.com }\n            Action:\n              - kms:Encrypt", "refuses kms:Decrypt to cloudwatch";
    a_key_that_rules_may_not_use: policies::senders, PIPELINE,
        "Principal: { Service: events.amazonaws.com }\n            Action:\n              - kms:Decrypt\n              - kms:GenerateDataKey" => "Principal: { Service: events.amazonaws.com }\n            Action:\n              - kms:Decrypt", "refuses kms:GenerateDataKey to events";
    a_switch_of_any_listener: policies::exact, PIPELINE,
        "Action: elasticloadbalancing:ModifyListener\n                Resource: !Ref ListenerArn"
            => "Action: elasticloadbalancing:ModifyListener\n                Resource: !Sub \"arn:${AWS::Partition}:elasticloadbalancing:${AWS::Region}:${AWS::AccountId}:listener/app/*\"",
        "allows elasticloadbalancing:ModifyListener of";
    a_rule_of_any_listener: policies::exact, PIPELINE,
        "Action: elasticloadbalancing:CreateRule\n                Resource: !Ref ListenerArn"
            => "Action: elasticloadbalancing:CreateRule\n                Resource: !Sub \"arn:${AWS::Partition}:elasticloadbalancing:${AWS::Region}:${AWS::AccountId}:listener/app/*\"",
        "allows elasticloadbalancing:CreateRule of";
    a_step_that_may_switch_too: policies::exact, PIPELINE,
        "                Action: elasticloadbalancing:CreateRule\n" => "                Action: [elasticloadbalancing:CreateRule, elasticloadbalancing:ModifyListener]\n",
        "allows elasticloadbalancing:ModifyListener of";
    any_role_that_is_passed: policies::exact, PIPELINE,
        "Action: iam:PassRole\n                Resource:\n                  - !ImportValue { \"Fn::Sub\": \"${Environment}-baseline-ExecutionRoleArn\" }"
            => "Action: iam:PassRole\n                Resource:\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/*\"",
        "allows iam:PassRole of";
    any_machine_that_a_push_starts: policies::exact, PIPELINE,
        "Action: states:StartExecution\n                Resource: !Sub \"arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:${Environment}-deploy\""
            => "Action: states:StartExecution\n                Resource: !Sub \"arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:*\"",
        "allows states:StartExecution of";
    a_schedule_that_starts_another_machine: policies::exact, PIPELINE,
        "Action: states:StartExecution\n                Resource: !Ref CleanupStateMachine"
            => "Action: states:StartExecution\n                Resource: !Ref RollbackStateMachine",
        "allows states:StartExecution of";
    any_secret_for_the_drain: policies::exact, PIPELINE,
        "Resource: !ImportValue { \"Fn::Sub\": \"${Environment}-baseline-DrainSecretArn\" }"
            => "Resource: !Sub \"arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:*\"",
        "allows secretsmanager:GetSecretValue of";
    any_secret_for_the_tasks: policies::exact, BASELINE,
        ":secret:${Environment}/*\"" => ":secret:*\"",
        "allows secretsmanager:GetSecretValue of";
    a_role_that_another_service_may_assume: policies::trust, PIPELINE,
        "Principal: { Service: lambda.amazonaws.com }" => "Principal: { Service: [lambda.amazonaws.com, ec2.amazonaws.com] }", "does not trust lambda.amazonaws.com alone";
    a_role_of_tasks_that_lambda_may_assume: policies::trust, BASELINE,
        "Principal: { Service: ecs-tasks.amazonaws.com }" => "Principal: { Service: lambda.amazonaws.com }", "does not trust ecs-tasks.amazonaws.com alone";
    a_role_for_any_account: policies::trust, PIPELINE,
        "StringEquals: { \"aws:SourceAccount\": !Ref AWS::AccountId }" => "StringLike: { \"aws:SourceAccount\": \"*\" }", "is assumed for other accounts too";

    a_promise_of_a_test_that_is_gone: promises::tested, "tests/README.md",
        "a_loop_ends_at_its_deadline" => "a_loop_never_ends", "the test a_loop_never_ends does not exist or does not run";
    a_promise_without_a_test: promises::tested, "tests/README.md",
        "| `a_loop_ends_at_its_deadline` |" => "| |", "has no test";
    a_promise_of_a_helper: promises::tested, "tests/README.md",
        "`a_loop_ends_at_its_deadline`" => "`assert_reported`", "the test assert_reported does not exist or does not run";
    a_promise_of_a_function_that_is_not_a_test: promises::tested, "tests/contract/tests/contract/expressions.rs",
        "#[test]\nfn a_loop_ends_at_its_deadline" => "fn a_loop_ends_at_its_deadline", "the test a_loop_ends_at_its_deadline does not exist or does not run";
    a_promise_of_a_test_that_is_ignored: promises::tested, "functions/find-deployments/src/plan/tests.rs",
        "#[test]\nfn a_deletion_that_has_begun_is_finished" => "#[test]\n#[ignore]\nfn a_deletion_that_has_begun_is_finished",
        "the test a_deletion_that_has_begun_is_finished does not exist or does not run";
    a_promise_of_a_check_that_does_not_run: promises::tested, "tests/contract/tests/contract/main.rs",
        "    images_are_kept_as_the_documents_say:" => "    // images_are_kept_as_the_documents_say:",
        "the test images_are_kept_as_the_documents_say does not exist or does not run";
    a_promise_of_a_field: promises::tested, "tests/README.md",
        "`a_loop_ends_at_its_deadline`" => "`answers`", "the test answers does not exist or does not run";
    a_task_that_anybody_reaches: promises::network, BASELINE,
        "SourceSecurityGroupId: !Ref DrainSecurityGroup" => "CidrIp: 0.0.0.0/0", "tasks are reached by others";
    a_task_that_is_reached_by_any_protocol: promises::network, BASELINE,
        "IpProtocol: tcp, FromPort: 8000, ToPort: 8000, SourceSecurityGroupId" => "IpProtocol: \"-1\", FromPort: 8000, ToPort: 8000, SourceSecurityGroupId",
        "tasks are reached by others";
    a_task_that_a_rule_of_its_own_opens: promises::network, BASELINE,
        "\nResources:\n" => "\nResources:\n  Open:\n    Type: AWS::EC2::SecurityGroupIngress\n    Properties: { GroupId: !GetAtt ServiceSecurityGroup.GroupId, IpProtocol: tcp, FromPort: 8000, ToPort: 8000, CidrIp: 0.0.0.0/0 }\n",
        "tasks are reached by others";
    a_task_that_the_pipeline_opens: promises::network, PIPELINE,
        "\nResources:\n" => "\nResources:\n  Open:\n    Type: AWS::EC2::SecurityGroupIngress\n    Properties: { GroupId: !ImportValue { \"Fn::Sub\": \"${Environment}-baseline-ServiceSecurityGroupId\" }, IpProtocol: \"-1\", CidrIp: 10.0.0.0/8 }\n",
        "tasks are reached by others";
    a_group_that_no_check_knows: promises::network, PIPELINE,
        "\nResources:\n" => "\nResources:\n  Open:\n    Type: AWS::EC2::SecurityGroupIngress\n    Properties: { GroupId: !Select [0, !Ref Groups], IpProtocol: \"-1\", CidrIp: 0.0.0.0/0 }\n",
        "the group of Open in infra/pipeline.yaml is reached too";
    a_load_balancer_with_another_port: promises::network, BASELINE,
        "FromPort: 80, ToPort: 80" => "FromPort: 80, ToPort: 8080", "open on other ports";
    http_that_is_answered: promises::network, BASELINE,
        "StatusCode: HTTP_301" => "StatusCode: HTTP_302", "not redirected";
    images_that_expire_although_they_are_kept: promises::images, BASELINE,
        "\"tagPrefixList\": [\"KEEP-\"]" => "\"tagPrefixList\": [\"KEPT-\"]", "images are kept in another way";
    images_that_expire_by_their_first_tag: promises::images, BASELINE,
        "\"countNumber\": 100000" => "\"countNumber\": 1", "images are kept in another way";
    images_that_expire_by_another_number: promises::images, BASELINE,
        "\"countNumber\": ${ImagesKept}" => "\"countNumber\": 100", "images are kept in another way";
    images_that_expire_by_age: promises::images, BASELINE,
        "\"countType\": \"imageCountMoreThan\", \"countNumber\": ${ImagesKept}" => "\"countType\": \"sinceImagePushed\", \"countUnit\": \"days\", \"countNumber\": ${ImagesKept}",
        "images are kept in another way";
    images_whose_parts_expire_at_once: promises::images, BASELINE,
        "\"countUnit\": \"days\", \"countNumber\": 14" => "\"countUnit\": \"days\", \"countNumber\": 1", "images are kept in another way";
    another_number_of_days: promises::images, "docs/aws.md",
        "expire 14 days after" => "expire 30 days after", "does not say `expire 14 days";
    another_number_of_images: promises::images, "docs/aws.md",
        "keeps the newest 1000 images" => "keeps the newest 100 images", "does not say `keeps the newest 1000 images`";
    an_alarm_without_a_recipient: promises::alarms, PIPELINE,
        "AlarmActions: [!Ref FailureTopic]" => "AlarmActions: []", "does not report to the failure topic";
    an_alarm_that_is_turned_off: promises::alarms, PIPELINE,
        "AlarmActions: [!Ref FailureTopic]" => "AlarmActions: [!Ref FailureTopic]\n      ActionsEnabled: false", "does not report to the failure topic";
    an_alarm_on_another_machine: promises::alarms, PIPELINE,
        "      MetricName: ExecutionsTimedOut\n      Dimensions: [{ Name: StateMachineArn, Value: !Ref CleanupStateMachine }]"
            => "      MetricName: ExecutionsTimedOut\n      Dimensions: [{ Name: StateMachineArn, Value: !Ref DeployStateMachine }]",
        "CleanupTimedOutAlarm watches";
    an_alarm_on_another_ending: promises::alarms, PIPELINE,
        "MetricName: ExecutionsAborted" => "MetricName: ExecutionsSucceeded", "DeployAbortedAlarm watches";
    an_alarm_after_the_second_failure: promises::alarms, PIPELINE,
        "Threshold: 0" => "Threshold: 1", "DeployFailedAlarm compares";
    an_alarm_on_a_metric_that_nobody_writes: promises::alarms, PIPELINE,
        "MetricName: UnhealthyTargets" => "MetricName: UnhealthyHostCount", "UnhealthyTargetsAlarm watches";
    an_alarm_on_another_namespace: promises::alarms, PIPELINE,
        "Namespace: PulseDeploy" => "Namespace: Pulse", "UnhealthyTargetsAlarm watches";
    a_cleanup_that_reports_under_another_name: promises::alarms, CLEANUP,
        "\"MetricName\": \"UnhealthyTargets\"" => "\"MetricName\": \"Unhealthy\"", "UnhealthyTargetsAlarm watches";
    a_cleanup_that_reports_for_another_environment: promises::alarms, CLEANUP,
        "\"Dimensions\": [{\"Name\": \"Environment\"," => "\"Dimensions\": [{\"Name\": \"Stack\",", "UnhealthyTargetsAlarm watches";
    an_alarm_that_nobody_documents: promises::alarms, PIPELINE,
        "AlarmName: !Sub ${Environment}-dead-letters" => "AlarmName: !Sub ${Environment}-letters", "the alarm letters is in";
    any_rule_that_starts_deployments: promises::one_trigger, PIPELINE,
        "SourceArn: !GetAtt ImagePushedRule.Arn" => "SourceAccount: !Ref AWS::AccountId", "something else than the rule of pushes";

    an_authentication_that_the_switch_may_not_keep: permissions::what_aws_needs, PIPELINE,
        "Action: cognito-idp:DescribeUserPoolClient" => "Action: cognito-idp:DescribeUserPool", "does not allow cognito-idp:DescribeUserPoolClient";
    tags_of_a_rule_that_only_the_rule_allows: permissions::tags_of_creations, PIPELINE,
        "                  - !Ref ListenerArn\n                  - !Sub\n" => "                  - !Sub\n", "the tags of CreateRule lack";
    tags_of_a_revision_that_only_its_number_allows: permissions::tags_of_creations, PIPELINE,
        "task-definition/${Environment}-app\"\n" => "task-definition/${Environment}-app:1\"\n", "the tags of RegisterTaskDefinition lack";
    a_drain_from_outside: baseline::drain_rule, BASELINE,
        "Values: [/drain, /drain/]" => "Values: [/drain]", "lets requests for /drain through";
    a_room_that_the_document_miscounts: baseline::drain_rule, "docs/architecture.md",
        "48 deployments and room" => "49 deployments and room", "does not say `two per deployment: 48";

    an_output_under_another_name: baseline::outputs, BASELINE,
        "  AlbDnsName:" => "  DnsName:", "no output AlbDnsName";
    an_import_of_what_is_not_exported: baseline::outputs, PIPELINE,
        "-baseline-VpcId" => "-baseline-Vpc", "imports ${Environment}-baseline-Vpc,";
    a_listener_whose_default_action_is_in_a_template: baseline::live_traffic, BASELINE,
        "Port: 80\n      Protocol: HTTP\n" => "Port: 443\n      Protocol: HTTPS\n", "infra/baseline.yaml has HttpListener, whose default action";
    a_repository_that_stays_when_its_creation_fails: baseline::images, BASELINE,
        "DeletionPolicy: RetainExceptOnCreate" => "DeletionPolicy: Retain", "is not kept, or also when";
    a_deployment_id_that_can_move: baseline::images, BASELINE,
        "\"sha256-*\"" => "\"*\"", "other tags than those of attestations";
    a_subnet_in_a_network_that_exists: baseline::existing_network, BASELINE,
        "  PublicSubnetTwo:\n    Type: AWS::EC2::Subnet\n    Condition: OwnNetwork\n" => "  PublicSubnetTwo:\n    Type: AWS::EC2::Subnet\n", "PublicSubnetTwo is created in a network that exists";
    a_nat_gateway_in_a_network_that_exists: baseline::existing_network, BASELINE,
        "HasNatGatewayPerZone: !And [!Condition OwnNetwork, !Equals [!Ref NatGateway, perZone]]" => "HasNatGatewayPerZone: !Equals [!Ref NatGateway, perZone]", "NatGatewayTwo is created in a network that exists";
    a_rule_that_two_networks_have: baseline::existing_network, BASELINE,
        "Condition: ExistingNetwork" => "Condition: HasListener", "AlbToTasks is created in a network that exists";
    a_network_that_is_always_the_stacks_own: baseline::existing_network, BASELINE,
        "OwnNetwork: !Equals [!Ref VpcId, \"\"]" => "OwnNetwork: !Equals [\"\", \"\"]", "exactly if VpcId is empty";
    a_group_in_a_network_that_may_not_exist: baseline::existing_network, BASELINE,
        "VpcId: !If [OwnNetwork, !Ref Vpc, !Ref VpcId]" => "VpcId: !Ref Vpc", "AlbSecurityGroup needs Vpc, which may not exist";
    an_output_of_a_network_that_may_not_exist: baseline::existing_network, BASELINE,
        "Value: !If [OwnNetwork, !Ref Vpc, !Ref VpcId]" => "Value: !Ref Vpc", "VpcId needs Vpc, which may not exist";
    a_load_balancer_that_waits_for_what_may_not_exist: baseline::existing_network, BASELINE,
        "Type: AWS::ElasticLoadBalancingV2::LoadBalancer\n" => "Type: AWS::ElasticLoadBalancingV2::LoadBalancer\n    DependsOn: PublicDefaultRoute\n", "LoadBalancer needs PublicDefaultRoute";
    tasks_that_an_update_makes_unreachable: baseline::ways_to_tasks, BASELINE,
        "- { Description: Draining, IpProtocol: tcp, FromPort: 8000, ToPort: 8000, CidrIp: !Ref VpcCidr }" => "- !Ref AWS::NoValue", "DrainSecurityGroup does not reach tasks in the stack's network";
    tasks_that_are_out_of_reach: baseline::ways_to_tasks, BASELINE,
        "      GroupId: !Ref AlbSecurityGroup" => "      GroupId: !Ref ServiceSecurityGroup", "AlbSecurityGroup does not reach tasks in a network that exists";
    a_zone_that_depends_on_another_one: baseline::nat_gateways, BASELINE,
        "NatGatewayId: !If [HasNatGatewayPerZone, !Ref NatGatewayTwo, !Ref NatGatewayOne]" => "NatGatewayId: !Ref NatGatewayOne", "the gateway of PrivateDefaultRouteTwo";
    a_subnet_that_loses_its_route: baseline::nat_gateways, BASELINE,
        "RouteTableId: !Ref PrivateRouteTableTwo\n\n  NatAddress" => "RouteTableId: !If [HasNatGatewayPerZone, !Ref PrivateRouteTableTwo, !Ref PrivateRouteTable]\n\n  NatAddress", "the route table of PrivateSubnetTwoRoutes";
    a_choice_that_existing_stacks_have_made: baseline::nat_gateways, BASELINE,
        "[\"true\", \"false\", perZone]" => "[one, none, perZone]", "the choice of NAT gateways";
    parameters_of_a_similar_environment: baseline::what_starts_tasks, BASELINE,
        "parameter/pulse/${Environment}/*" => "parameter/pulse/${Environment}*", "may call ssm:GetParameters of";
    secrets_of_a_similar_environment: baseline::what_starts_tasks, BASELINE,
        "secret:${Environment}/*" => "secret:${Environment}*", "may call secretsmanager:GetSecretValue of";
    any_key_for_tasks: baseline::what_starts_tasks, BASELINE,
        "Action: ssm:GetParameters\n" => "Action: [ssm:GetParameters, kms:Decrypt]\n", "may call kms:Decrypt of";
    tasks_without_their_parameters: baseline::what_starts_tasks, BASELINE,
        "Action: ssm:GetParameters\n" => "Action: ssm:GetParameter\n", "may not call ssm:GetParameters";
    a_policy_for_what_does_not_exist: baseline::live_traffic, "infra/baseline-stack-policy.json",
        "LogicalResourceId/Cluster" => "LogicalResourceId/EcsCluster", "protects EcsCluster, which";

    a_query_language_in_a_state: machines::query_language, MACHINE,
        "\"Type\": \"Wait\"," => "\"Type\": \"Wait\", \"QueryLanguage\": \"JSONata\",", "below the top";
    no_query_language: machines::query_language, MACHINE,
        "\"QueryLanguage\": \"JSONata\"," => "", "at the top is not JSONata";
    a_state_without_a_reason: machines::comments, MACHINE,
        "\"Comment\": \"Counts the healthy targets, checks that ECS has completed the rollout," => "\"Note\": \"", "CheckTargetHealth has no Comment";
    an_ending_that_the_comment_forgets: machines::comments, MACHINE,
        "UndoFailed (something may be left)" => "otherwise", "does not name the ending UndoFailed";
    a_transition_to_nowhere: machines::ways, MACHINE,
        "\"Next\": \"WaitForTargets\"" => "\"Next\": \"WaitForGodot\"", "leads to WaitForGodot";
    a_state_that_cannot_be_reached: machines::ways, MACHINE,
        "\"Default\": \"WaitForUndo\"" => "\"Default\": \"UndoDeployment\"", "no transition leads to WaitForUndo";
    a_choice_without_default: machines::ways, MACHINE,
        "\"Default\": \"WaitForTargets\"" => "\"Otherwise\": \"WaitForTargets\"", "AreTargetsHealthy has no Default";
    a_state_that_leads_nowhere: machines::ways, MACHINE,
        "\"Seconds\": 5, \"Next\": \"UndoDeployment\"" => "\"Seconds\": 5", "WaitForUndo must either end or lead on";
    a_service_before_its_rule: machines::rule_before_service, MACHINE,
        "\"Next\": \"CreateListenerRule\"" => "\"Next\": \"CreateService\"", "without CreateListenerRule";
    an_error_of_ours_that_is_retried: machines::retries, MACHINE,
        "\"TransientError\"," => "\"TransientError\", \"InvalidInputError\",", "retries InvalidInputError";
    a_retry_of_everything: machines::retries, MACHINE,
        "\"TransientError\"," => "\"States.ALL\",", "retries States.ALL";
    a_transient_error_that_is_not_retried: machines::retries, MACHINE,
        "\"Lambda.TooManyRequestsException\"," => "", "does not retry Lambda.TooManyRequestsException";
    a_function_that_is_not_waited_for: machines::retries, MACHINE,
        "\"Lambda.ENINotReadyException\"," => "", "does not retry Lambda.ENINotReadyException";
    a_function_that_is_not_waited_for_long_enough: machines::retries, MACHINE,
        "\"IntervalSeconds\": 20" => "\"IntervalSeconds\": 2", "does not wait until a function is ready";
    a_hook_that_is_called_again_after_a_crash: machines::retries, MACHINE,
        "\"Lambda.SdkClientException\", \"Lambda.TooManyRequestsException\"],\n          \"IntervalSeconds\": 2, \"MaxAttempts\": 3" => "\"Runtime.ExitError\", \"Lambda.TooManyRequestsException\"],\n          \"IntervalSeconds\": 2, \"MaxAttempts\": 3", "of a hook";
    a_hook_whose_long_answer_ends_the_execution: machines::error_names, MACHINE,
        "\"States.DataLimitExceeded\"" => "\"States.Timeout\"", "does not catch an answer that is too long";
    a_machine_that_may_run_any_function: pipeline::machines, PIPELINE,
        "function:${Environment}-hook-*" => "function:*", "function:*";
    an_approval_that_outlasts_its_machine: limits::deadlines, MACHINE,
        "\"TimeoutSeconds\": 86400" => "\"TimeoutSeconds\": 72000", "deploy: an execution may take";
    a_wait_that_nothing_ends: machines::approvals, MACHINE,
        "\"AwaitApproval\": {" => "\"AwaitAnswer\": {", "nothing ends the wait of AwaitAnswer";
    a_wait_without_a_token: machines::approvals, MACHINE,
        "{% $states.context.Task.Token %}" => "{% $deployment.deploymentId %}", "AwaitApproval has no token there";
    a_wait_without_a_look: machines::approvals, MACHINE,
        "\"Next\": \"AwaitApproval\"" => "\"Next\": \"KeepChecked\"", "AwaitApproval does not look before it waits";
    a_machine_that_may_not_publish: policies::senders, PIPELINE,
        "Action: sns:Publish\n                Resource: !Ref FailureTopic" => "Action: sns:GetTopicAttributes\n                Resource: !Ref FailureTopic", "DeployStateMachineRole does not allow sns:Publish";
    a_machine_that_may_not_use_the_key_of_the_topic: policies::senders, PIPELINE,
        "Resource: !GetAtt FailureTopicKey.Arn" => "Resource: \"*\"", "DeployStateMachineRole does not allow kms:GenerateDataKey";
    a_role_that_answers_in_place_of_a_person: policies::exact, PIPELINE,
        "Action: states:ListExecutions" => "Action: states:SendTaskSuccess", "allows states:SendTaskSuccess";
    hooks_without_a_deadline: limits::deadlines, MACHINE,
        "$millis() >= $hooksDeadline" => "false and $hooksDeadline", "WaitForHook belongs to a loop without a deadline";
    a_switch_that_is_tried_again_at_once: machines::retries, MACHINE,
        "\"IntervalSeconds\": 5," => "\"IntervalSeconds\": 2,", "before its last try has changed it";
    a_choice_that_assigns_beside_its_rules: machines::choices, MACHINE,
        "\"Default\": \"WaitForTargets\"" => "\"Assign\": {\"failure\": null}, \"Default\": \"WaitForTargets\"", "AreTargetsHealthy assigns beside its rules";
    a_choice_with_a_way_that_is_never_taken: machines::choices, MACHINE,
        "\"Choices\": [" => "\"Choices\": [{\"Condition\": \"{% true %}\", \"Next\": \"Succeeded\"},", "has ways after the rule that is always true";
    retries_in_step: machines::retries, MACHINE,
        "\"JitterStrategy\": \"FULL\"" => "\"JitterStrategy\": \"NONE\"", "full jitter";
    an_error_that_does_not_occur: machines::error_names, MACHINE,
        "\"DeploymentActiveError\"" => "\"DeploymentIsActiveError\"", "matches DeploymentIsActiveError";
    an_error_in_an_expression_that_does_not_occur: machines::error_names, "statemachine/rollback.asl.json",
        "'NoRollbackTargetError'" => "'NoTargetError'", "matches NoTargetError";
    a_catch_that_parses: machines::error_names, MACHINE,
        "\"output\": \"{% $states.errorOutput %}\"" => "\"output\": \"{% $parse($states.errorOutput.Cause) %}\"", "in its Catch";
    a_failure_that_is_not_caught: machines::error_names, MACHINE,
        "\"States.ALL\"" => "\"UnexpectedError\"", "does not catch States.ALL last";
    a_state_of_another_name: machines::names, MACHINE,
        "${CreateServiceFunctionArn}" => "${SwitchTrafficFunctionArn}", "CreateService runs the function SwitchTraffic";
    a_state_of_a_function_that_is_not_there: machines::names, MACHINE,
        "${CreateServiceFunctionArn}" => "${MakeServiceFunctionArn}", "runs MakeService";

    a_variable_that_is_never_assigned: variables::assigned, MACHINE,
        "\"healthDeadline\": " => "\"deadline\": ", "reads $healthDeadline";
    a_variable_that_is_assigned_on_some_paths_only: variables::assigned, MACHINE,
        "\"failure\": null," => "", "reads $failure";
    a_result_where_there_is_none: variables::assigned, MACHINE,
        "\"input\": \"{% $states.input %}\"" => "\"input\": \"{% $states.result %}\"", "reads $states.result";
    a_function_that_jsonata_does_not_have: variables::assigned, MACHINE,
        "$contains(" => "$includes(", "calls $includes";

    a_variable_inside_with_the_name_of_one_outside: variables::names, CLEANUP,
        "\"problem\":" => "\"failure\":", "$failure is assigned inside CleanUpDeployments";
    a_variable_inside_that_is_assigned_on_some_paths_only: variables::assigned, CLEANUP,
        "\"item\": " => "\"deployment\": ", "reads $item";
    a_transition_inside_to_nowhere: machines::ways, CLEANUP,
        "\"Default\": \"WaitForDeletion\"" => "\"Default\": \"Wait\"", "leads to Wait,";
    a_state_inside_without_a_reason: machines::comments, CLEANUP,
        "\"Comment\": \"The deletion is not finished." => "\"Note\": \"", "StillDeleting has no Comment";

    an_event_of_another_source: events::states, MACHINE,
        "\"Source\": \"pulse.deploy\"" => "\"Source\": \"pulse\"", "publishes as \"pulse\"";
    an_event_without_its_execution: events::states, MACHINE,
        "${Environment}\", \"execution\": " => "${Environment}\", \"run\": ", "the field execution is not";
    an_event_of_another_environment: events::states, MACHINE,
        "\"environment\": \"${Environment}\"" => "\"environment\": \"test\"", "the field environment is not";
    an_event_that_fails_a_deployment: events::states, MACHINE,
        "\"Next\": \"RegisterTaskDefinition\"}]" => "\"Next\": \"UndoDeployment\"}]", "PublishStarted: a failure to publish";
    an_event_from_a_state_of_another_name: events::states, CLEANUP,
        "\"PublishDeleted\": {" => "\"TellDeleted\": {", "TellDeleted must either publish";
    an_event_with_other_fields_elsewhere: events::states, CLEANUP,
        "\"previousDeploymentId\": " => "\"previous\": ", "Deployment Live has the field previousDeploymentId elsewhere";
    an_event_that_is_not_documented: events::documented, MACHINE,
        "\"Deployment Superseded\"" => "\"Deployment Lost\"", "Deployment Lost is in the machines but not";
    a_field_of_an_event_that_is_not_documented: events::documented, MACHINE,
        "\"imageDigest\": \"{% $deployment.imageDigest %}\"\n" => "\"digest\": 1\n", "Deployment Started: the field digest is in the machines but not";
    an_event_without_an_example: events::documented, EVENTS,
        "  \"Rollback Done\": {" => "  \"Rolled Back\": {", "the example of Rollback Done is in the machines but not";
    an_example_that_lacks_a_field: events::documented, EVENTS,
        "    \"replacedDeploymentId\": " => "    \"replaced\": ", "Rollback Done: the field replacedDeploymentId is in the machines but not";
    a_failure_that_is_not_reported: events::documented, PIPELINE,
        "Rollback Failed, Cleanup Failed]" => "Rollback Failed]", "whether Cleanup Failed is a failure";
    a_failure_that_never_comes: events::documented, PIPELINE,
        "Rollback Failed, Cleanup Failed]" => "Rollback Failed, Clean Up Failed]", "Clean Up Failed, which no machine publishes";

    an_example_with_an_unknown_field: inputs::examples, OPERATIONS,
        "| `{\"dryRun\": true}` |" => "| `{\"dry\": true}` |", "unknown field `dry`";
    an_example_that_is_refused: inputs::examples, OPERATIONS,
        "\"cpu\": 512, \"memory\": 1024" => "\"cpu\": 512, \"memory\": 512", "memory";
    an_example_for_no_machine: inputs::examples, OPERATIONS,
        "| `test-cleanup` |" => "| `test-clean` |", "test-clean is started, which is not a machine";
    a_field_that_is_not_documented: inputs::fields, "docs/state-machine.md",
        "| `dryRun` |" => "| `dry` |", "cleanup: the field dryRun is in the input but not";

    a_field_of_the_settings_that_the_schema_lacks: schemas::generated, "docs/settings.schema.json",
        "\"stickiness\"" => "\"sticky\"", "docs/settings.schema.json is not what the types say";
    a_schema_of_the_input_that_is_out_of_date: schemas::generated, "docs/input.schema.json",
        "\"entryPoint\"" => "\"entrypoint\"", "docs/input.schema.json is not what the types say";

    a_link_to_nowhere: references::links, OPERATIONS,
        "(errors.md)" => "(error.md)", "links to error.md";
    a_link_to_a_heading_that_is_not_there: references::links, OPERATIONS,
        "(#free-room)" => "(#make-room)", "has no such heading";
    a_verb_that_does_not_exist: references::verbs, "README.md",
        "make demo" => "make show", "`make show`";

    an_error_that_is_not_documented: documents::errors, "docs/errors.md",
        "| `ImageNotFoundError` |" => "| `NoImageError` |", "the code has";
    an_ending_that_the_errors_do_not_list: documents::errors, "docs/errors.md",
        "| `UndoFailed` |" => "| `RollbackFailed` |", "deploy: the ending UndoFailed is in the machine but not";
    a_failure_that_does_not_end_by_its_name: machines::names, MACHINE,
        "\"Error\": \"Failed\"" => "\"Error\": \"RolledBack\"", "Failed ends with the error \"RolledBack\"";
    a_retry_that_is_documented_wrongly: documents::errors, "docs/errors.md",
        "| `TransientError` | yes |" => "| `TransientError` | no |", "TransientError is retried";
    a_state_that_is_not_documented: documents::machines, "docs/state-machine.md",
        "| `WaitForUndo` |" => "| `Wait` |", "WaitForUndo is in the machine but not";
    a_state_that_is_documented_twice: documents::machines, "docs/state-machine.md",
        "| `WaitForUndo` |" => "| `WaitForTargets` | | | |\n| `WaitForUndo` |", "WaitForTargets 2 times";
    an_ending_that_is_not_documented: documents::machines, "docs/state-machine.md",
        "| `Refused` |" => "| `Rejected` |", "table of Endings, Refused is in the machine but not";
    a_way_that_is_not_drawn: documents::machines, "docs/state-machine.md",
        "  WaitForUndo --> UndoDeployment\n" => "", "WaitForUndo to UndoDeployment is in the machine but not";
    an_event_under_an_old_name: documents::outcomes, EVENTS,
        "| `Deployment Failed` |" => "| `Deployment Rolled Back` |", "the event Deployment Rolled Back, which no machine publishes";
    an_ending_under_an_old_name: documents::outcomes, "docs/errors.md",
        "ends as `UndoFailed`" => "ends as `Undone`", "the ending Undone, which no machine has";
    a_tag_that_is_not_documented: documents::tags, "functions/lifecycle/src/tags.rs",
        "\"pulse:ready-at\"" => "\"pulse:ready-since\"", "pulse:ready-since is in";
    a_gap_in_the_decisions: documents::decisions, "docs/adr/0002-newest-wins-without-a-lock.md",
        "## Consequences" => "## Effects", "has no heading `## Consequences`";
}

/// Every check that goes by the folders reports a new folder without the rest.
#[test]
fn a_new_folder_of_functions_without_the_rest() {
    let repository = Repository::read().unwrap();
    let grown = repository
        .with(
            "functions/warm-deployment/Cargo.toml",
            "[package]\nname = \"warm-deployment\"\n",
        )
        .with("functions/warm-deployment/src/lib.rs", "pub fn warm() {}");
    notices(
        functions::shape,
        &grown,
        "warm-deployment: src/lib.rs has no",
    );
    notices(
        functions::shape,
        &grown,
        "warm-deployment has no src/main.rs",
    );
    notices(
        pipeline::resources,
        &grown,
        "WarmDeploymentFunction is in functions/ but not",
    );
    notices(pipeline::uses, &grown, "runs warm-deployment");
}

#[test]
fn a_folder_of_functions_that_is_removed() {
    let shrunk = Repository::read()
        .unwrap()
        .without("functions/create-service/");
    notices(
        pipeline::resources,
        &shrunk,
        "CreateServiceFunction is in infra/pipeline.yaml but not",
    );
    notices(
        machines::names,
        &shrunk,
        "runs CreateService, which is not a folder",
    );
}

#[test]
fn a_machine_without_its_resource() {
    let repository = Repository::read().unwrap();
    let machine = repository.file(MACHINE).unwrap().to_owned();
    let grown = repository.with("statemachine/pause.asl.json", machine);
    notices(
        pipeline::machines,
        &grown,
        "PauseStateMachine is in statemachine/ but not",
    );
    notices(
        documents::machines,
        &grown,
        "pause: in the table of States, ValidateDeployment",
    );
}

/// A check reports each condition on the environment's tag that is removed, one at a time.
#[test]
fn every_condition_on_a_tag_that_is_removed_is_reported() {
    let repository = Repository::read().unwrap();
    let text = repository.file(PIPELINE).unwrap();
    assert_eq!(
        policies::untied(&repository.template("pipeline").unwrap()),
        [""; 0]
    );
    let tied: Vec<usize> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("aws:ResourceTag/pulse:environment"))
        .map(|(number, _)| number)
        .collect();
    assert!(tied.len() > 10, "{tied:?}");
    for removed in tied {
        let lines = text.lines().enumerate().map(|(number, line)| {
            let other = line.replace("aws:ResourceTag/pulse:environment", "aws:PrincipalTag/any");
            if number == removed {
                other
            } else {
                line.to_owned()
            }
        });
        let mistaken = Template::parse(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        assert!(
            !policies::untied(&mistaken).is_empty(),
            "line {} can be removed",
            removed + 1
        );
    }
}

/// A check reports each action that is removed from a role, one at a time.
#[test]
fn every_action_that_is_removed_from_a_role_is_reported() {
    let repository = Repository::read().unwrap();
    let text = repository.file(PIPELINE).unwrap();
    let template = repository.template("pipeline").unwrap();
    let statements = template.statements();
    // The mistakes in the template do not change these, so they are read once.
    let machines = repository.machines().unwrap();
    let called = calls::of_every_step(&repository).unwrap();
    let problems = |template: &Template| {
        let mut problems = permissions::allowed_as_aws_needs(template, &called);
        problems.extend(permissions::allowed_as_called(template, &called));
        problems.extend(pipeline::machines_in(template, &machines));
        problems.extend(policies::unpublished_by_roles(template, &machines));
        problems
    };
    assert_eq!(problems(&template), Vec::<String>::new());
    let mut silent = Vec::new();
    let mut taken = 0;
    for (number, line) in text.lines().enumerate() {
        let (listed, action) = match line.trim().split_once("Action: ") {
            Some((_, action)) => (false, action),
            None => (true, line.trim().trim_start_matches("- ")),
        };
        let is_action = action.split_once(':').is_some_and(|(service, operation)| {
            !service.is_empty()
                && service
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit())
                && operation.starts_with(|first: char| first.is_ascii_uppercase())
                && operation.bytes().all(|b| b.is_ascii_alphanumeric())
        });
        // The policies of queues, topics and keys are not roles.
        let of_a_role = statements
            .iter()
            .rfind(|statement| statement.line <= number + 1)
            .is_some_and(|statement| statement.resource.ends_with("Role"));
        if !is_action || !of_a_role {
            continue;
        }
        taken += 1;
        let without: Vec<_> = text
            .lines()
            .enumerate()
            .map(|(other, line)| match (other == number, listed) {
                (false, _) => line.to_owned(),
                (true, true) => String::new(),
                (true, false) => line.replace(action, "[]"),
            })
            .collect();
        // A list without its only entry is not a list any more, and the template cannot be read.
        let mistaken = Template::parse(&(without.join("\n") + "\n"));
        if mistaken.is_ok_and(|mistaken| problems(&mistaken).is_empty()) {
            silent.push(action);
        }
    }
    assert!(taken > 80, "only {taken} actions were found");
    silent.sort();
    silent.dedup();
    assert_eq!(silent, IN_NO_ROLE);
}

/// The rule's permission to invoke start-deployment is in the function's own policy. The local cloud
/// enforces it: without it no push of the scenarios would start a deployment.
const IN_NO_ROLE: [&str; 1] = ["lambda:InvokeFunction"];
