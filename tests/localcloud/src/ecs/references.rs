//! Image references.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>

use super::names::ClusterName;

/// An image reference without its registry: `repository:tag` or `repository@sha256:…`. As in Docker, the
/// first part is a registry if it has the form of a host.
pub fn without_registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, rest)) if host.contains('.') || host.contains(':') || host == "localhost" => {
            rest
        }
        _ => reference,
    }
}

/// The repository of an image reference.
pub fn repository(reference: &str) -> &str {
    let path = without_registry(reference);
    let path = path.split('@').next().unwrap_or(path);
    path.split(':').next().unwrap_or(path)
}

/// The ARN of an image's ECR repository. Region and account come from the registry in the reference, or
/// else from the cluster.
pub fn repository_arn(reference: &str, cluster: &ClusterName) -> String {
    let repository = repository(reference);
    let host: Vec<&str> = reference
        .split('/')
        .next()
        .unwrap_or_default()
        .split('.')
        .collect();
    match host[..] {
        [account, "dkr", "ecr", region, ..] => {
            format!("arn:aws:ecr:{region}:{account}:repository/{repository}")
        }
        _ => format!(
            "arn:aws:ecr:{}:repository/{repository}",
            region_and_account(cluster)
        ),
    }
}

/// `<region>:<account>` of a cluster.
pub fn region_and_account(cluster: &ClusterName) -> String {
    cluster
        .arn_prefix
        .split(':')
        .skip(3)
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_removed_and_the_path_stays() {
        for (reference, path, name) in [
            (
                "000000000000.dkr.ecr.us-east-1.amazonaws.com/test@sha256:ab",
                "test@sha256:ab",
                "test",
            ),
            ("127.0.0.1:4566/team/test:1", "team/test:1", "team/test"),
            ("localhost/test", "test", "test"),
            ("team/test:1", "team/test:1", "team/test"),
        ] {
            assert_eq!(without_registry(reference), path);
            assert_eq!(repository(reference), name);
        }
    }

    #[test]
    fn the_repository_arn_has_the_account_of_the_registry_or_of_the_cluster() {
        let cluster =
            ClusterName::from_arn("arn:aws:ecs:us-east-1:000000000000:cluster/test").unwrap();
        assert_eq!(
            repository_arn(
                "111122223333.dkr.ecr.eu-west-1.amazonaws.com/a/b:1",
                &cluster
            ),
            "arn:aws:ecr:eu-west-1:111122223333:repository/a/b"
        );
        assert_eq!(
            repository_arn("127.0.0.1:4566/test:1", &cluster),
            "arn:aws:ecr:us-east-1:000000000000:repository/test"
        );
    }
}
