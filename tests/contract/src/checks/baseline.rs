//! The parts of `infra/baseline.yaml` on which others rely.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use lifecycle::defaults;
use serde_json::{Value, json};

use crate::Repository;
use crate::template::strings;

/// Outputs that operators and other stacks use by name.
const OUTPUTS: [&str; 14] = [
    "AlbDnsName",
    "AlbHostedZoneId",
    "AlbSecurityGroupId",
    "CertificateArn",
    "ClusterName",
    "EcrRepositoryUri",
    "ExecutionRoleArn",
    "ListenerArn",
    "LogGroupName",
    "PrivateSubnets",
    "PublicSubnets",
    "ServiceSecurityGroupId",
    "TaskRoleArn",
    "VpcId",
];

/// The expected outputs exist, and everything that the pipeline imports is exported.
///
/// # Errors
/// When a template cannot be read.
pub fn outputs(repository: &Repository) -> Result<Vec<String>> {
    let outputs = repository.template("baseline")?.section("Outputs");
    let mut problems: Vec<_> = OUTPUTS
        .iter()
        .filter(|name| !outputs.contains_key(**name))
        .map(|name| format!("infra/baseline.yaml has no output {name}"))
        .collect();
    let exported: BTreeSet<_> = outputs
        .values()
        .filter_map(|output| output["Export"]["Name"]["Fn::Sub"].as_str())
        .collect();
    let pipeline = repository.template("pipeline")?;
    let mut imported = BTreeSet::new();
    imports(&pipeline.value, &mut imported);
    problems.extend(
        imported
            .iter()
            .filter(|name| !exported.contains(name.as_str()))
            .map(|name| {
                format!(
                    "infra/pipeline.yaml imports {name}, which infra/baseline.yaml does not export"
                )
            }),
    );
    Ok(problems)
}

/// The stack keeps the repository, because its images may be the only copies, but not when its own creation
/// fails. An image does not change under its deployment id, and tools can move the tags of its attestations.
///
/// # Errors
/// When the template cannot be read.
pub fn images(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let mut problems = Vec::new();
    for (name, resource) in template.resources_of("AWS::ECR::Repository") {
        let policies = [
            &resource["DeletionPolicy"],
            &resource["UpdateReplacePolicy"],
        ];
        if policies != ["RetainExceptOnCreate", "Retain"] {
            problems.push(format!(
                "{name} is not kept, or also when its creation fails"
            ));
        }
        let properties = &resource["Properties"];
        let filters = &properties["ImageTagMutabilityExclusionFilters"];
        let movable: Vec<_> = filters.as_array().into_iter().flatten().collect();
        let filter = movable
            .first()
            .map(|it| &it["ImageTagMutabilityExclusionFilterValue"]);
        if properties["ImageTagMutability"] != "IMMUTABLE_WITH_EXCLUSION"
            || movable.len() != 1
            || filter.is_none_or(|it| it != "sha256-*")
        {
            problems.push(format!(
                "{name}: other tags than those of attestations can move"
            ));
        }
    }
    Ok(problems)
}

fn imports(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(import) = fields.get("Fn::ImportValue") {
                found.insert(
                    import["Fn::Sub"]
                        .as_str()
                        .map_or_else(|| import.to_string(), str::to_owned),
                );
            }
            fields.values().for_each(|field| imports(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| imports(item, found)),
        _ => {}
    }
}

/// No stack has the HTTPS listener, because CloudFormation would set the default action of its template with
/// any change of it. The stack policy names only resources that exist.
///
/// # Errors
/// When a template or the policy cannot be read.
pub fn live_traffic(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for name in ["baseline", "pipeline"] {
        let template = repository.template(name)?;
        let listeners = template.resources_of("AWS::ElasticLoadBalancingV2::Listener");
        let https = |(_, listener): &(String, Value)| listener["Properties"]["Protocol"] == "HTTPS";
        problems.extend(listeners.into_iter().filter(https).map(|(listener, _)| {
            format!(
                "infra/{name}.yaml has {listener}, whose default action CloudFormation would set"
            )
        }));
    }
    let path = "infra/baseline-stack-policy.json";
    let policy: Value = serde_json::from_str(repository.file(path).context(path)?)?;
    let resources = repository.template("baseline")?.section("Resources");
    let statements = policy["Statement"].as_array().into_iter().flatten();
    let named: Vec<_> = statements.flat_map(|it| strings(&it["Resource"])).collect();
    let protected = named
        .iter()
        .filter_map(|it| it.strip_prefix("LogicalResourceId/"));
    problems.extend(
        protected
            .filter(|name| !resources.contains_key(*name))
            .map(|name| format!("{path} protects {name}, which infra/baseline.yaml does not have")),
    );
    Ok(problems)
}

/// The load balancer answers `/drain` itself, before any rule of a deployment, and the documents count the
/// rules that are left.
///
/// # Errors
/// When the template or the document cannot be read.
pub fn drain_rule(repository: &Repository) -> Result<Vec<String>> {
    let path = "infra/baseline.yaml";
    let rules = repository
        .template("baseline")?
        .resources_of("AWS::ElasticLoadBalancingV2::ListenerRule");
    let answers_drain = |rule: &Value| {
        let properties = &rule["Properties"];
        properties["Conditions"]
            == json!([{"Field": "path-pattern", "Values": ["/drain", "/drain/"]}])
            && properties["Actions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
            && properties["ListenerArn"] == json!({"Ref": "ListenerArn"})
            && properties["Priority"] == defaults::HEADER_RULES_FROM - 1
    };
    let mut problems = Vec::new();
    if !rules.iter().any(|(_, rule)| answers_drain(rule)) {
        problems.push(format!(
            "{path} lets requests for /drain through to deployments"
        ));
    }
    // The next one has to fit beside them.
    let deployments = (100 - rules.len()) / 2 - 1;
    let document = "docs/architecture.md";
    let said = format!("two per deployment: {deployments} deployments and room for the next one");
    if !repository.file(document).context(document)?.contains(&said) {
        problems.push(format!("{document} does not say `{said}`"));
    }
    Ok(problems)
}
