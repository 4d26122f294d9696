//! ARNs, and the short names that callers may use instead.
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html>

use super::answer::Refusal;

/// A cluster, from which the ARNs of its services and tasks are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName {
    /// `arn:aws:ecs:<region>:<account>`.
    pub arn_prefix: String,
    pub name: String,
}

impl ClusterName {
    /// Reads the ARN of a cluster. `None` if it is a different kind of ARN.
    pub fn from_arn(arn: &str) -> Option<Self> {
        let (arn_prefix, name) = arn.split_once(":cluster/")?;
        arn_prefix.starts_with("arn:").then(|| ClusterName {
            arn_prefix: arn_prefix.to_owned(),
            name: name.to_owned(),
        })
    }

    pub fn arn(&self) -> String {
        format!("{}:cluster/{}", self.arn_prefix, self.name)
    }

    /// The ARN of a service in this cluster (the long format, the only one for new services).
    pub fn service_arn(&self, service: &str) -> String {
        format!("{}:service/{}/{service}", self.arn_prefix, self.name)
    }

    pub fn task_arn(&self, id: &str) -> String {
        format!("{}:task/{}/{id}", self.arn_prefix, self.name)
    }

    /// The ARN of a service that the caller names by ARN or short name. An ARN stays unchanged, so that a
    /// service of another cluster is not found in this one.
    pub fn service_reference(&self, reference: &str) -> String {
        if reference.starts_with("arn:") {
            reference.to_owned()
        } else {
            self.service_arn(reference)
        }
    }

    /// The ARN of a task that the caller names by ARN or id.
    pub fn task_reference(&self, reference: &str) -> String {
        if reference.starts_with("arn:") {
            reference.to_owned()
        } else {
            self.task_arn(reference)
        }
    }
}

/// The last part of an ARN or of a short name, such as the id of a task or the name of a service.
pub fn last_part(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// The account id in an ARN.
pub fn account_of(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

/// Checks the name of a service: "Up to 255 letters (uppercase and lowercase), numbers, underscores, and
/// hyphens are allowed."
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>
pub fn check_service_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::invalid_parameter("Service name can not be blank."));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() > 255 || !name.chars().all(allowed) {
        return Err(Refusal::invalid_parameter(
            "Invalid service name. Up to 255 letters (uppercase and lowercase), numbers, \
             underscores, and hyphens are allowed.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterName {
        ClusterName::from_arn("arn:aws:ecs:us-east-1:000000000000:cluster/test").unwrap()
    }

    #[test]
    fn services_and_tasks_are_found_by_arn_and_by_short_name() {
        let arn = "arn:aws:ecs:us-east-1:000000000000:service/test/app";
        assert_eq!(cluster().service_reference("app"), arn);
        assert_eq!(cluster().service_reference(arn), arn);
        let task = "arn:aws:ecs:us-east-1:000000000000:task/test/0123";
        assert_eq!(cluster().task_reference("0123"), task);
        assert_eq!(cluster().task_reference(task), task);
    }

    #[test]
    fn a_service_name_with_a_slash_or_of_256_characters_is_refused() {
        assert!(check_service_name("test-20251027-122112Z").is_ok());
        assert!(check_service_name("a/b").is_err());
        assert!(check_service_name(&"a".repeat(256)).is_err());
        assert!(check_service_name("").is_err());
    }
}
