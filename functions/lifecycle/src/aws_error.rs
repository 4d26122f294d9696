//! The table from AWS's error codes to our error names.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::{ErrorName, StepError};

/// The codes of a call that came too early: every service has its own name for it.
const THROTTLED: &str = "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException \
                         RequestLimitExceeded TooManyRequestsException SlowDown";

/// The AWS error codes that determine a name, separated by spaces. Without one of them, an error is
/// `Transient` if the status is 5xx or no answer arrived, else `Unexpected`.
///
/// Common errors: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html>.
pub const CODES: &[(ErrorName, &str)] = &[
    (ErrorName::Transient, THROTTLED),
    // Failures inside AWS.
    (
        ErrorName::Transient,
        "InternalFailure InternalError InternalServiceError InternalServiceException ServerException ServiceUnavailable \
         ServiceUnavailableException HealthUnavailable RequestTimeout RequestTimeoutException",
    ),
    // Two changes of one scalable target at once.
    (ErrorName::Transient, "ConcurrentUpdateException"),
    (
        ErrorName::AccessDenied,
        "AccessDenied AccessDeniedException UnauthorizedOperation UnrecognizedClientException \
         InvalidClientTokenId",
    ),
    (
        ErrorName::QuotaExceeded,
        "TooManyRules TooManyTargetGroups TooManyUniqueTargetGroupsPerLoadBalancer TooManyTargets \
         TooManyActions TooManyTags TargetGroupAssociationLimit LimitExceededException \
         ServiceQuotaExceededException",
    ),
    // Names that are in use.
    (
        ErrorName::ResourceConflict,
        "DuplicateTargetGroupName PriorityInUse ResourceInUse",
    ),
    // The baseline.
    (
        ErrorName::Configuration,
        "ListenerNotFound LoadBalancerNotFound ClusterNotFoundException RepositoryNotFoundException \
         StateMachineDoesNotExist InvalidSubnet InvalidSecurityGroup",
    ),
    (ErrorName::ImageNotFound, "ImageNotFoundException"),
];

/// The error of an AWS call.
///
/// `attempt` says what was tried on which resource, as in "create target group test-…".
pub fn failed<E>(attempt: impl std::fmt::Display, error: SdkError<E, HttpResponse>) -> StepError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let name = name_of(&error);
    let advice = match name {
        ErrorName::AccessDenied => {
            "; allow the action in the function's role (infra/pipeline.yaml)"
        }
        ErrorName::Configuration => {
            "; check that the baseline stack of this environment is deployed and complete"
        }
        ErrorName::QuotaExceeded => "; clean up older deployments or raise the quota",
        ErrorName::ImageNotFound => "; push the image, or correct the deployment id",
        _ => "",
    };
    let cause = match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => causes(&error),
    };
    StepError::new(name, format!("could not {attempt}: {cause}{advice}"))
}

/// The error with its causes, because the outermost one of a connection says next to nothing. Without their
/// Debug form, which would contain the body of an answer, and so perhaps a secret.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts.dedup();
    texts.join(": ")
}

/// Whether the call has certainly changed nothing: it was never sent, or AWS refused it. A failure inside AWS and an
/// answer that did not arrive say nothing.
pub fn is_refused<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let is_throttled = error
        .code()
        .is_some_and(|code| THROTTLED.split(' ').any(|known| known == code));
    match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::ServiceError(answer) => {
            answer.raw().status().is_client_error()
                && (is_throttled || name_of(error) != ErrorName::Transient)
        }
        _ => false,
    }
}

/// The code that AWS answered with, if it answered.
pub fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.code()
}

/// The answer of an AWS call, or `None` when its error means that the resource does not exist.
///
/// # Errors
/// As [`CODES`] say, for every other error.
pub fn found<T, E>(
    attempt: impl std::fmt::Display,
    answer: Result<T, SdkError<E, HttpResponse>>,
    is_gone: impl FnOnce(&E) -> bool,
) -> Result<Option<T>, StepError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.as_service_error().is_some_and(is_gone) => Ok(None),
        Err(error) => Err(failed(attempt, error)),
    }
}

/// The ARN in the answer to a call that created something.
///
/// # Errors
/// `Transient` when it is missing: the state machine runs the step again, which looks up first.
pub fn created_arn(
    attempt: impl std::fmt::Display,
    arn: Option<String>,
) -> Result<String, StepError> {
    arn.ok_or_else(|| {
        StepError::new(
            ErrorName::Transient,
            format!("could not {attempt}: the answer contains no ARN"),
        )
    })
}

fn name_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> ErrorName {
    let listed = error
        .code()
        .and_then(|code| {
            CODES
                .iter()
                .find(|(_, codes)| codes.split(' ').any(|known| known == code))
        })
        .map(|(name, _)| *name);
    match (listed, error) {
        (Some(name), _) => name,
        (None, SdkError::TimeoutError(_) | SdkError::DispatchFailure(_)) => ErrorName::Transient,
        (None, other) => match other
            .raw_response()
            .map(|response| response.status().as_u16())
        {
            // 5xx: a failure inside AWS. 2xx and unreadable: the answer was lost on the way.
            Some(500..=599) | Some(200..=299) => ErrorName::Transient,
            _ => ErrorName::Unexpected,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_elasticloadbalancingv2::operation::create_rule::CreateRuleError;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    fn answered(code: &str, status: u16) -> SdkError<CreateRuleError, HttpResponse> {
        SdkError::service_error(
            CreateRuleError::generic(ErrorMetadata::builder().code(code).message("why").build()),
            HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty()),
        )
    }

    fn each_code() -> impl Iterator<Item = (ErrorName, &'static str)> {
        CODES
            .iter()
            .flat_map(|(name, codes)| codes.split(' ').map(|code| (*name, code)))
    }

    #[test]
    fn every_row_of_the_table_holds() {
        for (name, code) in each_code() {
            assert_eq!(failed("do it", answered(code, 400)).name, name, "{code}");
        }
    }

    /// What each name is for, written down a second time.
    #[test]
    fn the_codes_of_each_decision_have_its_name() {
        for (name, codes) in [
            (
                ErrorName::Transient,
                &[
                    "Throttling",
                    "ThrottlingException",
                    "RequestLimitExceeded",
                    "ServiceUnavailable",
                    "InternalFailure",
                ][..],
            ),
            (
                ErrorName::AccessDenied,
                &["AccessDenied", "AccessDeniedException"],
            ),
            (
                ErrorName::QuotaExceeded,
                &[
                    "TooManyRules",
                    "TooManyTargetGroups",
                    "LimitExceededException",
                ],
            ),
            (
                ErrorName::ResourceConflict,
                &["DuplicateTargetGroupName", "PriorityInUse", "ResourceInUse"],
            ),
            (
                ErrorName::Configuration,
                &["ListenerNotFound", "ClusterNotFoundException"],
            ),
            (ErrorName::ImageNotFound, &["ImageNotFoundException"]),
            (
                ErrorName::Unexpected,
                &["ValidationError", "TargetGroupNotFound"],
            ),
        ] {
            for code in codes {
                assert_eq!(failed("do it", answered(code, 400)).name, name, "{code}");
            }
        }
    }

    #[test]
    fn no_code_stands_in_the_table_twice() {
        let mut codes: Vec<_> = each_code().map(|(_, code)| code).collect();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), each_code().count());
    }

    #[test]
    fn an_unknown_code_is_transient_only_with_a_5xx() {
        assert_eq!(
            failed("do it", answered("New", 503)).name,
            ErrorName::Transient
        );
        assert_eq!(
            failed("do it", answered("New", 400)).name,
            ErrorName::Unexpected
        );
    }

    #[test]
    fn a_call_is_refused_only_if_aws_says_so() {
        for (code, status, refused) in [
            ("Throttling", 400, true),
            ("AccessDenied", 403, true),
            ("ValidationError", 400, true),
            // Some part of AWS was too slow, and another one may have acted.
            ("RequestTimeout", 400, false),
            ("Throttling", 503, false),
            ("InternalFailure", 500, false),
        ] {
            assert_eq!(
                is_refused(&answered(code, status)),
                refused,
                "{code} {status}"
            );
        }
        let lost: SdkError<CreateRuleError, HttpResponse> = SdkError::timeout_error("too slow");
        assert!(!is_refused(&lost));
        let unsent: SdkError<CreateRuleError, HttpResponse> = SdkError::construction_failure("no");
        assert!(is_refused(&unsent));
    }

    #[test]
    fn a_call_that_never_arrived_is_transient() {
        let error: SdkError<CreateRuleError, HttpResponse> = SdkError::timeout_error("too slow");
        assert_eq!(failed("do it", error).name, ErrorName::Transient);
    }

    #[test]
    fn a_message_contains_nothing_of_a_body_that_cannot_be_read() {
        let body = SdkBody::from("{\"SecretString\": \"open-sesame");
        let response = HttpResponse::new(StatusCode::try_from(200).unwrap(), body);
        let error: SdkError<CreateRuleError, HttpResponse> =
            SdkError::response_error("the body broke off", response);
        let error = failed("read it", error);
        assert_eq!(error.name, ErrorName::Transient);
        assert!(error.message.contains("the body broke off"), "{error}");
        assert!(!error.message.contains("sesame"), "{error}");
    }

    #[test]
    fn the_message_says_what_was_tried_what_aws_said_and_what_to_do() {
        for (code, advice) in [
            (
                "TooManyRules",
                "; clean up older deployments or raise the quota",
            ),
            (
                "AccessDenied",
                "; allow the action in the function's role (infra/pipeline.yaml)",
            ),
            (
                "ListenerNotFound",
                "; check that the baseline stack of this environment is deployed and complete",
            ),
            (
                "ImageNotFoundException",
                "; push the image, or correct the deployment id",
            ),
            ("Throttling", ""),
        ] {
            let error = failed("create target group test-1", answered(code, 400));
            let message = format!("could not create target group test-1: {code}: why{advice}");
            assert_eq!(error.message, message);
        }
    }

    #[test]
    fn a_code_without_a_message_is_shown() {
        let error = ErrorMetadata::builder().code("Throttling").build();
        let response = HttpResponse::new(StatusCode::try_from(400).unwrap(), SdkBody::empty());
        let error = SdkError::service_error(CreateRuleError::generic(error), response);
        assert_eq!(
            failed("do it", error).message,
            "could not do it: Throttling"
        );
    }
}
