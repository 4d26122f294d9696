use super::*;
use aws_sdk_elasticloadbalancingv2::types::{
    AuthenticateOidcActionConfig, JwtValidationActionConfig,
};
use memory_aws::MemoryAws;

fn action(kind: ActionTypeEnum) -> Action {
    Action::builder().r#type(kind).build()
}

fn oidc(client: &str) -> Action {
    let config = AuthenticateOidcActionConfig::builder().client_id(client);
    let mut action = action(ActionTypeEnum::AuthenticateOidc);
    action.authenticate_oidc_config = Some(config.build());
    action
}

fn policy(actions: &[Action]) -> Policy {
    Policy::of("the default action", actions).unwrap()
}

async fn secret_for(policy: &Policy, aws: &MemoryAws) -> Result<Option<ClientSecret>, StepError> {
    let secrets = aws_sdk_secretsmanager::Client::new(&aws.config());
    client_secret(&secrets, &Baseline::for_tests(), policy).await
}

#[test]
fn nothing_of_a_client_secret_is_printed() {
    let secret = ClientSecret("open-sesame".to_owned());
    assert_eq!(format!("{:?}", Some(secret)), "Some(ClientSecret)");
}

#[test]
fn every_action_before_the_routing_one_belongs_to_it() {
    for kind in [
        ActionTypeEnum::AuthenticateOidc,
        ActionTypeEnum::AuthenticateCognito,
        ActionTypeEnum::JwtValidation,
    ] {
        for routing in [
            ActionTypeEnum::Forward,
            ActionTypeEnum::FixedResponse,
            ActionTypeEnum::Redirect,
        ] {
            let policy = policy(&[action(kind.clone()), action(routing)]);
            assert_eq!(policy, Policy(vec![action(kind.clone())]));
        }
    }
}

#[test]
fn the_form_in_which_aws_shows_an_action_makes_no_difference() {
    let mut shown = oidc("one");
    shown.order = Some(7);
    let config = shown.authenticate_oidc_config.as_mut().unwrap();
    config.authentication_request_extra_params = Some(Default::default());
    config.use_existing_client_secret = Some(false);
    assert_eq!(policy(&[shown]), policy(&[oidc("one")]));
    assert_ne!(policy(&[oidc("one")]), policy(&[oidc("another")]));

    let jwt = |claims: Option<Vec<_>>| {
        let config = JwtValidationActionConfig::builder().set_additional_claims(claims);
        let mut action = action(ActionTypeEnum::JwtValidation);
        action.jwt_validation_config = Some(config.build());
        policy(&[action])
    };
    assert_eq!(jwt(None), jwt(Some(Vec::new())));
}

#[test]
fn an_action_type_that_is_unknown_is_refused_by_name() {
    for (kind, name) in [
        (Some("check-passport".into()), "`check-passport`"),
        (None, "`none`"),
    ] {
        let unknown = Action::builder().set_type(kind).build();
        let error = Policy::of("rule arn:1", &[unknown]).unwrap_err();
        assert_eq!(error.name, ErrorName::Configuration);
        for words in ["rule arn:1", name] {
            assert!(error.message.contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn the_secret_is_read_only_where_a_rule_needs_it_and_printed_nowhere() {
    let aws = MemoryAws::default();
    let none = secret_for(&policy(&[action(ActionTypeEnum::JwtValidation)]), &aws).await;
    assert!(none.unwrap().is_none());
    assert_eq!(aws.count("GetSecretValue"), 0);

    let name = "test/oidc-client-secret".to_owned();
    // An editor ends the file with a line break.
    aws.with(|state| state.secrets.insert(name, "open-sesame\r\n".into()));
    let policy = policy(&[oidc("one")]);
    let secret = secret_for(&policy, &aws).await.unwrap();
    assert!(!format!("{secret:?}").contains("sesame"));
    let actions = policy.with_secret(secret.as_ref());
    let config = actions[0].authenticate_oidc_config().unwrap();
    assert_eq!(config.client_secret(), Some("open-sesame"));
    assert_eq!(config.use_existing_client_secret(), None);
}

#[tokio::test]
async fn a_secret_that_is_missing_no_line_or_being_deleted_is_named() {
    let missing = MemoryAws::default();
    let empty = MemoryAws::default();
    let name = "test/oidc-client-secret".to_owned();
    empty.with(|state| state.secrets.insert(name, String::new()));
    let two_lines = MemoryAws::default();
    let name = "test/oidc-client-secret".to_owned();
    two_lines.with(|state| state.secrets.insert(name, "open\nsesame".into()));
    let deleted = MemoryAws::default();
    deleted
        .on("GetSecretValue")
        .fails("InvalidRequestException");
    for aws in [missing, empty, two_lines, deleted] {
        let error = secret_for(&policy(&[oidc("one")]), &aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Configuration);
        assert!(!error.message.contains("sesame"), "{error}");
        assert!(error.message.contains("test/oidc-client-secret"), "{error}");
    }
    let throttled = MemoryAws::default();
    throttled.on("GetSecretValue").fails("ThrottlingException");
    let error = secret_for(&policy(&[oidc("one")]), &throttled)
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
}
