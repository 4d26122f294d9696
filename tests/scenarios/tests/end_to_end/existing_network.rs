//! An environment in a network that its stack did not create.

use anyhow::{Context, Result, ensure};
use localcloud::Options;
use scenarios::TestEnvironment;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_lives_in_a_network_that_exists_and_leaves_it_as_it_was() -> Result<()> {
    let env = TestEnvironment::prepare(Options::default()).await?;
    let vpc = create(
        &env,
        &["create-vpc", "--cidr-block", "10.7.0.0/16"],
        "Vpc.VpcId",
    )
    .await?;
    let mut subnets = Vec::new();
    for (number, zone) in ["a", "b", "a", "b"].iter().enumerate() {
        let range = format!("10.7.{number}.0/24");
        let zone = format!("us-east-1{zone}");
        let of = [
            "create-subnet",
            "--vpc-id",
            &vpc,
            "--cidr-block",
            &range,
            "--availability-zone",
            &zone,
        ];
        subnets.push(create(&env, &of, "Subnet.SubnetId").await?);
    }
    let [public, private] = [&subnets[..2], &subnets[2..]].map(|subnets| subnets.join(","));
    let network = describe(&env).await?;

    // Both subnets in one zone, before anything is made.
    let before = env.cloud.calls().newest();
    let one_zone = format!("{},{}", subnets[0], subnets[2]);
    let refused = deploy(&env, &vpc, &public, &one_zone, &[]).await?;
    let words = "the subnets of PrivateSubnetIds are all in the zone us-east-1a";
    assert!(refused.contains(words), "{refused}");
    let calls = env.cloud.calls().since(before);
    let reads = ["Describe", "Get"];
    let changes = calls
        .iter()
        .filter(|call| !reads.iter().any(|it| call.operation.starts_with(it)));
    assert_eq!(
        changes
            .map(|call| call.operation.as_str())
            .collect::<Vec<_>>(),
        [""; 0]
    );

    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/settings.json");
    let settings = "{\"cpu\": 512, \"memory\": 1024}";
    std::fs::write(path, settings)?;
    let said = deploy(&env, &vpc, &public, &private, &[("SETTINGS", path)]).await?;
    ensure!(said.contains("test is ready"), "{said}");
    assert_eq!(describe(&env).await?, network);
    let stored = [
        "ssm",
        "get-parameter",
        "--name",
        "/pulse/test/settings",
        "--query",
        "Parameter.Value",
    ];
    let stored = [&stored[..], &["--output", "text"]].concat();
    assert_eq!(env.aws(&stored).await?.trim_end(), settings);
    let said = deploy(&env, &vpc, &public, &private, &[("SETTINGS", path)]).await?;
    assert!(
        said.contains("/pulse/test/settings: nothing to change"),
        "{said}"
    );

    let balancers = env.elb.describe_load_balancers().send().await?;
    let balancer = balancers
        .load_balancers()
        .first()
        .context("no load balancer")?;
    let zones = balancer.availability_zones().iter();
    let mut of_balancer: Vec<_> = zones.filter_map(|zone| zone.subnet_id()).collect();
    of_balancer.sort_unstable();
    let mut given: Vec<_> = public.split(',').collect();
    given.sort_unstable();
    // Its network is that of its subnets; MiniStack shows its own.
    assert_eq!(of_balancer, given);

    // Deployments run in it.
    let live = env.deploy_live(&[]).await?.name;
    let services = env
        .ecs
        .describe_services()
        .cluster(&env.name)
        .services(&live)
        .send()
        .await?;
    let service = services.services().first().context("no service")?;
    let placed = service
        .network_configuration()
        .and_then(|it| it.awsvpc_configuration());
    let placed = placed.context("the service has no network")?;
    assert_eq!(placed.subnets().join(","), private);
    let group = placed
        .security_groups()
        .first()
        .context("no security group")?;

    // What others have in the network is not in the way, but a rule that names a group of the environment is.
    env.elb
        .create_target_group()
        .name("test-eu-20251027-122112Z")
        .vpc_id(&vpc)
        .protocol(aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Http)
        .port(80)
        .send()
        .await?;
    let of = [
        "create-security-group",
        "--group-name",
        "database",
        "--description",
        "x",
        "--vpc-id",
        &vpc,
    ];
    let database = create(&env, &of, "GroupId").await?;
    let rule = [
        "--group-id",
        &database,
        "--protocol",
        "tcp",
        "--port",
        "5432",
        "--source-group",
        group,
    ];
    env.aws(&[&["ec2", "authorize-security-group-ingress"], &rule[..]].concat())
        .await?;
    let refused = env.destroy(&[("CONFIRM", "test")]).await?;
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    let words = format!("rules of the security groups {database} name the security group {group}");
    assert!(refused.contains(&words), "{refused}");
    assert_eq!(env.active().await?, Some(live));
    env.aws(&[&["ec2", "revoke-security-group-ingress"], &rule[..]].concat())
        .await?;
    env.destroy_with_images().await?;

    assert_eq!(describe(&env).await?, network);
    let groups = env.elb.describe_target_groups().send().await?;
    let groups: Vec<_> = groups
        .target_groups()
        .iter()
        .filter_map(|it| it.target_group_name())
        .collect();
    assert_eq!(groups, ["test-eu-20251027-122112Z"]);
    let left = env.aws(&stored).await.map_err(|why| why.to_string());
    assert!(left.is_err_and(|why| why.contains("ParameterNotFound")));
    env.tear_down().await;
    Ok(())
}

/// Creates something of EC2; returns its id.
async fn create(env: &TestEnvironment, of: &[&str], id: &str) -> Result<String> {
    let created = env
        .aws(&[&["ec2"], of, &["--query", id, "--output", "text"]].concat())
        .await?;
    Ok(created.trim_end().to_owned())
}

/// Everything in EC2 that makes a network.
async fn describe(env: &TestEnvironment) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (what, ids) in [
        ("describe-vpcs", "Vpcs[].VpcId"),
        ("describe-subnets", "Subnets[].SubnetId"),
        (
            "describe-route-tables",
            "RouteTables[].[RouteTableId, Routes, Associations]",
        ),
        (
            "describe-internet-gateways",
            "InternetGateways[].[InternetGatewayId, Attachments]",
        ),
        ("describe-vpc-endpoints", "VpcEndpoints[].VpcEndpointId"),
    ] {
        found.push(
            env.aws(&["ec2", what, "--query", ids, "--output", "json"])
                .await?,
        );
    }
    Ok(found)
}

/// Deploys into a network; returns all that the script said.
async fn deploy(
    env: &TestEnvironment,
    vpc: &str,
    public: &str,
    private: &str,
    variables: &[(&str, &str)],
) -> Result<String> {
    let parameters =
        format!("NatGateway=false VpcId={vpc} PublicSubnetIds={public} PrivateSubnetIds={private}");
    let mut script = env.cloud.deployment(&env.name)?;
    script
        .env("BASELINE_PARAMETERS", parameters)
        .envs(variables.iter().copied());
    let ended = script.output().await?;
    Ok(String::from_utf8([ended.stdout, ended.stderr].concat())?)
}
