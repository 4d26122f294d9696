//! The contract between functions, templates, state machines and documents, and the proof that each
//! check reports a breach of it.

mod expressions;
mod mistaken_commands;
mod mutations;

use contract::Repository;
use contract::checks::{
    Check, baseline, commands, documents, events, functions, inputs, limits, machines, payloads,
    permissions, pipeline, policies, promises, references, schemas, variables,
};

/// Fails with all problems, not only with the first.
fn holds(check: Check) {
    let repository = Repository::read().expect("the repository is readable");
    let problems = check(&repository).expect("the checked files are readable");
    assert!(problems.is_empty(), "\n- {}\n", problems.join("\n- "));
}

#[test]
fn there_are_steps_and_machines_to_check() {
    let repository = Repository::read().unwrap();
    assert!(!repository.steps().is_empty());
    assert!(!repository.machines().unwrap().is_empty());
    assert!(
        !repository
            .template("pipeline")
            .unwrap()
            .statements()
            .is_empty()
    );
}

macro_rules! contract {
    ($($sentence:ident: $check:path;)*) => {$(
        #[test]
        fn $sentence() {
            holds($check);
        }
    )*};
}

contract! {
    directory_package_and_binary_have_one_name: functions::names;
    every_step_has_a_run_and_a_small_main: functions::shape;
    no_step_depends_on_another_one: functions::dependencies;
    one_place_decides_what_is_active: functions::active;
    functions_know_the_fields_that_machines_send: payloads::fields;
    machines_compare_only_words_that_exist: payloads::words;
    machines_send_the_payloads_that_the_executions_list: expressions::payloads;
    functions_can_read_what_machines_send: expressions::inputs;
    functions_read_the_variables_that_the_template_sets: functions::environment;

    every_step_has_a_function_a_role_and_a_log_group: pipeline::resources;
    no_role_is_shared: pipeline::roles;
    every_parameter_says_what_it_is_for: pipeline::parameters;
    machines_get_their_placeholders_and_may_invoke_what_they_call: pipeline::machines;
    every_function_is_used: pipeline::uses;

    functions_time_out_before_the_states_that_wait_for_them: limits::timeouts;
    the_largest_deployment_can_be_drained_in_time: limits::drain;
    a_machine_has_time_for_every_try_of_every_step_and_for_its_loops: limits::deadlines;
    the_longest_execution_has_fewer_events_than_aws_allows: limits::history;

    actions_are_allowed_one_by_one: permissions::actions;
    all_resources_are_allowed_only_where_aws_supports_nothing_narrower: permissions::resources;
    every_statement_has_a_comment_on_what_it_allows: permissions::comments;
    roles_allow_what_the_code_calls_and_no_more: permissions::calls;
    roles_allow_what_aws_itself_needs: permissions::what_aws_needs;
    tags_of_creations_are_allowed_wherever_aws_may_check_them: permissions::tags_of_creations;
    roles_are_assumed_by_what_uses_them_for_this_account_only: policies::trust;
    roles_change_only_what_carries_their_environments_tag: policies::changes;
    traffic_roles_and_secrets_are_open_to_those_who_need_them_only: policies::exact;
    queues_topics_and_keys_let_their_senders_in: policies::senders;
    roles_are_passed_to_tasks_only: policies::passed_roles;
    every_promise_has_a_test: promises::tested;
    http_is_redirected_and_tasks_are_reached_by_two_only: promises::network;
    images_are_kept_as_the_documents_say: promises::images;
    every_alarm_is_documented_and_reports: promises::alarms;
    only_the_rule_of_pushes_starts_deployments: promises::one_trigger;

    the_baseline_exports_what_others_rely_on: baseline::outputs;
    no_request_from_outside_reaches_drain: baseline::drain_rule;
    images_are_kept_under_their_deployment_ids: baseline::images;
    nothing_but_security_groups_is_created_in_a_network_that_exists: baseline::existing_network;
    tasks_are_reached_in_either_network: baseline::ways_to_tasks;
    every_private_subnet_has_a_way_out: baseline::nat_gateways;
    tasks_start_with_the_parameters_and_secrets_of_their_environment_only: baseline::what_starts_tasks;
    cloudformation_cannot_move_live_traffic: baseline::live_traffic;

    the_query_language_is_set_once_at_the_top: machines::query_language;
    every_state_has_a_comment_with_its_reason: machines::comments;
    every_transition_leads_to_a_state_and_every_state_is_reached: machines::ways;
    choices_assign_by_their_rules_only: machines::choices;
    the_listener_rule_comes_before_the_service: machines::rule_before_service;
    only_transient_errors_are_retried: machines::retries;
    every_failure_is_caught_by_a_name_that_exists: machines::error_names;
    states_have_the_names_of_their_functions: machines::names;
    waits_for_an_approval_can_be_ended: machines::approvals;
    every_variable_is_assigned_before_it_is_read: variables::assigned;
    no_variable_inside_a_map_has_the_name_of_one_outside: variables::names;
    events_name_their_source_and_fail_no_execution: events::states;

    the_error_names_are_documented: documents::errors;
    the_machines_are_documented: documents::machines;
    the_events_and_endings_in_the_documents_exist: documents::outcomes;
    the_tags_are_documented: documents::tags;
    the_events_are_documented_and_failures_are_reported: events::documented;
    the_functions_accept_the_inputs_in_the_documents: inputs::examples;
    the_aws_cli_takes_every_command_in_the_documents: commands::aws_cli;
    the_fields_of_the_inputs_are_documented: inputs::fields;
    the_schemas_are_what_the_types_say: schemas::generated;
    every_link_leads_to_a_file_and_a_heading: references::links;
    every_make_verb_in_the_documents_exists: references::verbs;
    decisions_are_numbered_and_complete: documents::decisions;
}
