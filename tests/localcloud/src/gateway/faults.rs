//! Faults that are injected into AWS calls.

use std::sync::{Arc, Mutex, PoisonError};

use super::{answer::AwsError, operation::Operation};

/// A failure that can be injected into a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `ThrottlingException`, "Rate exceeded". The call does not take effect.
    Throttled,
    /// Status 500. The call does not take effect.
    InternalError,
    /// Status 503. The call does not take effect.
    Unavailable,
    /// The caller lacks the permission. The call does not take effect.
    AccessDenied,
    /// The connection is closed before the call takes effect.
    ConnectionReset,
    /// The call takes effect, and then the connection is closed without an answer.
    AnswerLost,
    /// The calling function is killed before the call takes effect. Only calls of functions match.
    KilledBeforeCall,
    /// The call takes effect, and then the calling function is killed. Only calls of functions match.
    KilledAfterCall,
    /// The call takes effect after a delay.
    Slow {
        /// The delay in real milliseconds, which the time scale does not change.
        milliseconds: u64,
    },
    /// A call that only reads gets the answer to the previous identical call, if there was one.
    StaleRead,
}

/// A fault and the calls that it hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// The service as signatures name it, for example `ecs`, `elasticloadbalancing`, or `monitoring` for CloudWatch.
    pub service: String,
    /// The operation, for example `CreateService`.
    pub operation: String,
    /// The name of the calling function. Absent for any caller.
    pub function: Option<String>,
    /// The number of the first call that fails, from 1, among the matching calls after the rule was
    /// added.
    pub nth: u32,
    /// Whether all calls from the n-th on fail. If false, only the n-th fails.
    pub forever: bool,
    /// The failure to inject.
    pub fault: Fault,
}

impl FaultRule {
    /// A fault for the next call of an operation.
    pub fn next(service: &str, operation: &str, fault: Fault) -> Self {
        Self {
            service: service.to_owned(),
            operation: operation.to_owned(),
            function: None,
            nth: 1,
            forever: false,
            fault,
        }
    }

    /// The same fault, but only for calls of this function.
    pub fn of(self, function: &str) -> Self {
        Self {
            function: Some(function.to_owned()),
            ..self
        }
    }

    /// The same fault for the n-th matching call, from 1.
    pub fn at(self, nth: u32) -> Self {
        Self { nth, ..self }
    }

    /// The same fault for all calls from the n-th on.
    pub fn forever(self) -> Self {
        Self {
            forever: true,
            ..self
        }
    }

    fn matches(&self, operation: &Operation, function: Option<&str>) -> bool {
        let kills = matches!(self.fault, Fault::KilledBeforeCall | Fault::KilledAfterCall);
        let caller_matches = match &self.function {
            Some(name) => function == Some(name),
            None => !kills || function.is_some(),
        };
        caller_matches && self.service == operation.service && self.operation == operation.name
    }
}

/// The active faults. Clones share them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<(FaultRule, u32)>>>);

impl Faults {
    /// Adds a fault, which counts calls from now on.
    pub fn add(&self, rule: FaultRule) {
        self.lock().push((rule, 0));
    }

    /// Removes all faults and their counts.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Removes this fault; the others go on counting.
    pub fn remove(&self, rule: &FaultRule) {
        self.lock().retain(|(active, _)| active != rule);
    }

    /// The active faults, each with the number of calls that matched it.
    pub fn all(&self) -> Vec<(FaultRule, u32)> {
        self.lock().clone()
    }

    /// Counts a call by `function`, or by another caller, and returns the fault that hits it. If several
    /// do, the one that was added first.
    pub(super) fn fault_for(&self, operation: &Operation, function: Option<&str>) -> Option<Fault> {
        let mut found = None;
        for (rule, count) in self.lock().iter_mut() {
            if rule.matches(operation, function) {
                *count += 1;
                if *count == rule.nth || rule.forever && *count > rule.nth {
                    found = found.or(Some(rule.fault));
                }
            }
        }
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(FaultRule, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fault {
    /// The error to answer with, for the faults that are errors.
    pub(super) fn error(self, operation: &Operation) -> Option<AwsError> {
        let Operation { service, name, .. } = operation;
        Some(match (self, service.as_str()) {
            (Fault::Throttled, "lambda") => {
                AwsError::new("TooManyRequestsException", "Rate exceeded").with_status(429)
            }
            (Fault::Throttled, _) => AwsError::new("ThrottlingException", "Rate exceeded"),
            (Fault::InternalError, "ecs" | "ecr") => {
                AwsError::new("ServerException", "Service Unavailable. Please try again later.")
                    .with_status(500)
            }
            (Fault::InternalError, "application-autoscaling") => AwsError::new(
                "InternalServiceException",
                "The service encountered an internal error.",
            )
            .with_status(500),
            (Fault::InternalError, "monitoring") => AwsError::new(
                "InternalServiceError",
                "Request processing has failed due to some unknown error, exception, or failure.",
            )
            .with_status(500),
            (Fault::InternalError, "ssm") => AwsError::new(
                "InternalServerError",
                "An error occurred on the server side.",
            )
            .with_status(500),
            (Fault::InternalError, _) => AwsError::new(
                "InternalFailure",
                "The request processing has failed because of an unknown error, exception or failure.",
            )
            .with_status(500),
            (Fault::Unavailable, _) => AwsError::new(
                "ServiceUnavailable",
                "The request has failed due to a temporary failure of the server.",
            )
            .with_status(503),
            (Fault::AccessDenied, service) => {
                let namespace = match service {
                    "monitoring" => "cloudwatch",
                    other => other,
                };
                let message = format!("User is not authorized to perform: {namespace}:{name}");
                match service {
                    "elasticloadbalancing" | "iam" | "sts" | "s3" | "cloudformation"
                    | "monitoring" => AwsError::new("AccessDenied", message).with_status(403),
                    "lambda" => AwsError::new("AccessDeniedException", message).with_status(403),
                    _ => AwsError::new("AccessDeniedException", message),
                }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::operation::Protocol;

    fn call(faults: &Faults, name: &str) -> Option<Fault> {
        call_of(faults, name, None)
    }

    fn call_of(faults: &Faults, name: &str, function: Option<&str>) -> Option<Fault> {
        let operation = Operation {
            service: "ecs".into(),
            name: name.into(),
            protocol: Protocol::Json,
        };
        faults.fault_for(&operation, function)
    }

    #[test]
    fn a_fault_of_a_function_hits_and_counts_only_calls_of_that_function() {
        let faults = Faults::default();
        let second = FaultRule::next("ecs", "CreateService", Fault::Throttled).at(2);
        faults.add(second.of("test-create-service"));
        let call = |function| call_of(&faults, "CreateService", function);
        assert_eq!(call(Some("test-create-service")), None);
        assert_eq!(call(Some("test-restore-deployment")), None);
        assert_eq!(call(None), None);
        assert_eq!(call(Some("test-create-service")), Some(Fault::Throttled));
    }

    #[test]
    fn only_functions_are_killed() {
        let faults = Faults::default();
        let kill = FaultRule::next("ecs", "CreateService", Fault::KilledAfterCall);
        faults.add(kill);
        assert_eq!(call(&faults, "CreateService"), None);
        let killed = call_of(&faults, "CreateService", Some("test-create-service"));
        assert_eq!(killed, Some(Fault::KilledAfterCall));
    }

    #[test]
    fn a_fault_hits_only_the_nth_call() {
        let faults = Faults::default();
        faults.add(FaultRule::next("ecs", "CreateService", Fault::Throttled).at(2));
        assert_eq!(call(&faults, "CreateService"), None);
        assert_eq!(call(&faults, "DeleteService"), None);
        assert_eq!(call(&faults, "CreateService"), Some(Fault::Throttled));
        assert_eq!(call(&faults, "CreateService"), None);
    }
}
