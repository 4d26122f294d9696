//! Faults that are injected into AWS calls.

use std::sync::{Arc, Mutex, PoisonError};

use super::{answer::AwsError, operation::Operation};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `ThrottlingException`, "Rate exceeded"; nothing happens.
    Throttled,
    /// Status 500; nothing happens.
    InternalError,
    /// Status 503; nothing happens.
    Unavailable,
    /// The caller lacks the permission; nothing happens.
    AccessDenied,
    /// The connection is dropped before the call takes effect.
    ConnectionReset,
    /// The call takes effect, then the connection is dropped.
    AnswerLost,
    /// The function that calls is killed before the call takes effect. Nobody else is killed.
    KilledBeforeCall,
    /// The call takes effect, then the function that called is killed. Nobody else is killed.
    KilledAfterCall,
    /// The call takes effect after a delay.
    Slow {
        /// The delay, in milliseconds of the machine's clock.
        milliseconds: u64,
    },
    /// A reading call gets the answer that the same call got the last time, if there was one.
    StaleRead,
}

/// Which calls a fault hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// The service as signatures name it, for example `ecs` or `elasticloadbalancing`.
    pub service: String,
    /// The operation, for example `CreateService`.
    pub operation: String,
    /// The name of the function that calls; every caller when absent.
    pub function: Option<String>,
    /// The first matching call that fails, counted from 1 since the rule was added.
    pub nth: u32,
    /// Whether every call from the n-th on fails, instead of the n-th alone.
    pub forever: bool,
    /// What goes wrong.
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

    /// The same fault for the calls of that function only.
    pub fn of(self, function: &str) -> Self {
        Self {
            function: Some(function.to_owned()),
            ..self
        }
    }

    /// The same fault for the n-th call, counted from 1.
    pub fn at(self, nth: u32) -> Self {
        Self { nth, ..self }
    }

    /// The same fault for every call from the n-th on.
    pub fn forever(self) -> Self {
        Self {
            forever: true,
            ..self
        }
    }

    fn matches(&self, operation: &Operation, function: Option<&str>) -> bool {
        let kills = matches!(self.fault, Fault::KilledBeforeCall | Fault::KilledAfterCall);
        let by = match &self.function {
            Some(name) => function == Some(name),
            None => !kills || function.is_some(),
        };
        by && self.service == operation.service && self.operation == operation.name
    }
}

/// The faults in force. Clones share them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<(FaultRule, u32)>>>);

impl Faults {
    /// Adds a fault.
    pub fn add(&self, rule: FaultRule) {
        self.lock().push((rule, 0));
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The faults in force with the number of calls that each has seen.
    pub fn all(&self) -> Vec<(FaultRule, u32)> {
        self.lock().clone()
    }

    /// Counts the call, made by `function` if by one, and returns the fault that hits it; of several, the one added first.
    pub(super) fn fault_for(&self, operation: &Operation, function: Option<&str>) -> Option<Fault> {
        let mut found = None;
        for (rule, seen) in self.lock().iter_mut() {
            if rule.matches(operation, function) {
                *seen += 1;
                if *seen == rule.nth || rule.forever && *seen > rule.nth {
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
    /// The error that is answered instead of passing the call on, for the faults that are errors.
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
                let message = format!("User is not authorized to perform: {service}:{name}");
                match service {
                    "elasticloadbalancing" | "iam" | "sts" | "s3" | "cloudformation" => {
                        AwsError::new("AccessDenied", message).with_status(403)
                    }
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
