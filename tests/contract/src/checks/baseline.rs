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

/// The condition that the stack creates its network.
const OWN_NETWORK: &str = "OwnNetwork";
/// The condition of what stands in for it in a network that exists.
const EXISTING_NETWORK: &str = "ExistingNetwork";

/// In a network that exists the stack creates security groups and their rules, and nothing else of EC2. Nothing else
/// refers to a network of its own without a condition.
///
/// # Errors
/// When the template cannot be read.
pub fn existing_network(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let conditions = template.section("Conditions");
    let holds_in_own = |condition: &Value| {
        let name = condition.as_str().unwrap_or_default();
        let parts = conditions.get(name).map(|it| &it["Fn::And"]);
        let mut parts = parts.and_then(Value::as_array).into_iter().flatten();
        name == OWN_NETWORK || parts.any(|it| it["Condition"] == OWN_NETWORK)
    };
    let mut problems = Vec::new();
    let no_network = json!({"Fn::Equals": [{"Ref": "VpcId"}, ""]});
    if conditions.get(OWN_NETWORK) != Some(&no_network)
        || conditions.get(EXISTING_NETWORK)
            != Some(&json!({"Fn::Not": [{"Condition": OWN_NETWORK}]}))
    {
        problems.push("the network is not the stack's own exactly if VpcId is empty".to_owned());
    }
    let resources = template.section("Resources");
    for (name, resource) in &resources {
        let kind = resource["Type"].as_str().unwrap_or_default();
        let is_created_in_both = match kind {
            "AWS::EC2::SecurityGroup" => true,
            "AWS::EC2::SecurityGroupIngress" | "AWS::EC2::SecurityGroupEgress" => {
                resource["Condition"] == EXISTING_NETWORK
            }
            _ => !kind.starts_with("AWS::EC2::"),
        };
        if !is_created_in_both && !holds_in_own(&resource["Condition"]) {
            problems.push(format!("{name} is created in a network that exists"));
        }
    }
    let own: BTreeSet<&str> = resources
        .iter()
        .filter(|(_, resource)| holds_in_own(&resource["Condition"]))
        .map(|(name, _)| name.as_str())
        .collect();
    let others = resources
        .iter()
        .chain(template.value["Outputs"].as_object().into_iter().flatten())
        .filter(|(name, _)| !own.contains(name.as_str()));
    for (name, value) in others {
        let mut found = BTreeSet::new();
        unconditional(value, &mut found);
        let found = found.iter().filter(|it| own.contains(it.as_str()));
        problems.extend(found.map(|it| format!("{name} needs {it}, which may not exist")));
    }
    Ok(problems)
}

/// The names to which a value refers, apart from what a condition on the stack's own network chooses.
fn unconditional(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some([condition, _, otherwise]) = fields
                .get("Fn::If")
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                && *condition == OWN_NETWORK
            {
                return unconditional(otherwise, found);
            }
            for name in ["Ref", "DependsOn", "Fn::GetAtt"] {
                let names = fields.get(name).map(strings).unwrap_or_default();
                found.extend(names);
            }
            fields.values().for_each(|it| unconditional(it, found));
        }
        Value::Array(items) => items.iter().for_each(|it| unconditional(it, found)),
        _ => {}
    }
}

/// The load balancer and the drain function reach tasks in either network: by its range in the stack's own, which an
/// update must not replace, and by the tasks' group in one that exists.
///
/// # Errors
/// When the template cannot be read.
pub fn ways_to_tasks(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let rules = template.resources_of("AWS::EC2::SecurityGroupEgress");
    let mut problems = Vec::new();
    for group in ["AlbSecurityGroup", "DrainSecurityGroup"] {
        let egress = template.properties(group)["SecurityGroupEgress"].as_array();
        let by_range = egress.into_iter().flatten().any(|rule| {
            let [condition, rule, otherwise] = [0, 1, 2].map(|it| &rule["Fn::If"][it]);
            condition == OWN_NETWORK
                && rule["CidrIp"] == json!({"Ref": "VpcCidr"})
                && [&rule["FromPort"], &rule["ToPort"]] == [8000, 8000]
                && *otherwise == json!({"Ref": "AWS::NoValue"})
        });
        if !by_range {
            problems.push(format!(
                "{group} does not reach tasks in the stack's network"
            ));
        }
        let by_group = rules.iter().any(|(_, rule)| {
            let properties = &rule["Properties"];
            rule["Condition"] == EXISTING_NETWORK
                && properties["GroupId"] == json!({"Ref": group})
                && properties["DestinationSecurityGroupId"]
                    == json!({"Ref": "ServiceSecurityGroup"})
                && [&properties["FromPort"], &properties["ToPort"]] == [8000, 8000]
        });
        if !by_group {
            problems.push(format!(
                "{group} does not reach tasks in a network that exists"
            ));
        }
    }
    Ok(problems)
}

/// Each private subnet has a way out through the NAT gateway of its zone, or through the only one.
///
/// # Errors
/// When the template cannot be read.
pub fn nat_gateways(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let one = json!({"Ref": "PrivateRouteTable"});
    let two = json!({"Ref": "PrivateRouteTableTwo"});
    let mut problems = Vec::new();
    let mut expect = |what: &str, is: &Value, should: Value| {
        if *is != should {
            problems.push(format!("{what} is {is}, not {should}"));
        }
    };
    let values = &template.value["Parameters"]["NatGateway"]["AllowedValues"];
    expect(
        "the choice of NAT gateways",
        values,
        json!(["true", "false", "perZone"]),
    );
    for (routes, table) in [
        ("PrivateSubnetOneRoutes", one.clone()),
        ("PrivateSubnetTwoRoutes", two.clone()),
    ] {
        let is = &template.properties(routes)["RouteTableId"];
        expect(&format!("the route table of {routes}"), is, table);
    }
    let (first, second) = (
        json!({"Ref": "NatGatewayOne"}),
        json!({"Ref": "NatGatewayTwo"}),
    );
    // A route is replaced without a gap, and a subnet's table is not. So only the gateway depends on the choice.
    let of_two = json!({"Fn::If": ["HasNatGatewayPerZone", second, first]});
    for (route, table, gateway) in [
        ("PrivateDefaultRoute", &one, first),
        ("PrivateDefaultRouteTwo", &two, of_two),
    ] {
        let properties = template.properties(route);
        expect(
            &format!("the route table of {route}"),
            &properties["RouteTableId"],
            table.clone(),
        );
        expect(
            &format!("the gateway of {route}"),
            &properties["NatGatewayId"],
            gateway,
        );
    }
    for (gateway, subnet) in [
        ("NatGatewayOne", "PublicSubnetOne"),
        ("NatGatewayTwo", "PublicSubnetTwo"),
    ] {
        let is = &template.properties(gateway)["SubnetId"];
        expect(
            &format!("the subnet of {gateway}"),
            is,
            json!({"Ref": subnet}),
        );
    }
    let out = json!({"Fn::If": ["HasNatGateway", {"Ref": "PrivateDefaultRouteTwo"}, ""]});
    expect(
        "what PrivateSubnetTwoRoutes comes after",
        &template.value["Resources"]["PrivateSubnetTwoRoutes"]["Metadata"]["After"],
        json!([out, {"Ref": "S3Endpoint"}]),
    );
    expect(
        "the load balancer",
        &template.value["Resources"]["LoadBalancer"]["Metadata"]["After"],
        json!({"Fn::If": [OWN_NETWORK, {"Ref": "PublicDefaultRoute"}, ""]}),
    );
    let tables = &template.properties("S3Endpoint")["RouteTableIds"];
    expect("the tables of the S3 endpoint", tables, json!([one, two]));
    Ok(problems)
}

/// The role that starts tasks reads the parameters and secrets of its environment and no others. Without the slash at
/// the end, `test` would match `test-eu` too.
///
/// # Errors
/// When the template cannot be read.
pub fn what_starts_tasks(repository: &Repository) -> Result<Vec<String>> {
    const READS: [(&str, &str); 2] = [
        (
            "ssm:GetParameters",
            "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/pulse/${Environment}/*",
        ),
        (
            "secretsmanager:GetSecretValue",
            "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret:${Environment}/*",
        ),
    ];
    let template = repository.template("baseline")?;
    let statements = template.statements();
    let of_the_role = statements
        .iter()
        .filter(|it| it.resource == "ExecutionRole");
    let mut read = Vec::new();
    for statement in of_the_role {
        for action in statement.actions() {
            if ["ssm:", "secretsmanager:", "kms:"]
                .iter()
                .any(|it| action.starts_with(it))
            {
                let resource = statement.value["Resource"]["Fn::Sub"].as_str();
                read.push((action, resource.unwrap_or_default().to_owned()));
            }
        }
    }
    let expected = READS.map(|(action, resource)| (action.to_owned(), resource.to_owned()));
    let mut problems: Vec<_> = read
        .iter()
        .filter(|it| !expected.contains(it))
        .map(|(action, resource)| format!("ExecutionRole may call {action} of `{resource}`"))
        .collect();
    let missing = expected.iter().filter(|it| !read.contains(it));
    problems.extend(missing.map(|(action, _)| format!("ExecutionRole may not call {action}")));
    Ok(problems)
}
