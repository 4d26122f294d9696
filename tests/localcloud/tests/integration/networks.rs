//! Networks that templates create, and networks that exist already.

use serde_json::{Value, json};

use crate::cloud::start;
use crate::service::element;

/// A network with a public subnet, and a NAT gateway in it if the parameter says so.
const TEMPLATE: &str = r#"
Parameters:
  Nat: { Type: String, Default: "true" }
Conditions:
  HasNat: !Equals [!Ref Nat, "true"]
Resources:
  Vpc:
    Type: AWS::EC2::VPC
    Properties: { CidrBlock: 10.0.0.0/16 }
  Subnet:
    Type: AWS::EC2::Subnet
    Properties: { VpcId: !Ref Vpc, CidrBlock: 10.0.0.0/24, AvailabilityZone: us-east-1a }
  Routes:
    Type: AWS::EC2::RouteTable
    Properties: { VpcId: !Ref Vpc }
  Address:
    Type: AWS::EC2::EIP
    Condition: HasNat
    Properties: { Domain: vpc, Tags: [{ Key: Name, Value: nat }] }
  Gateway:
    Type: AWS::EC2::NatGateway
    Condition: HasNat
    Properties:
      AllocationId: !GetAtt Address.AllocationId
      SubnetId: !Ref Subnet
      Tags: [{ Key: Name, Value: nat }]
  DefaultRoute:
    Type: AWS::EC2::Route
    Condition: HasNat
    Properties: { RouteTableId: !Ref Routes, DestinationCidrBlock: 0.0.0.0/0, NatGatewayId: !Ref Gateway }
Outputs:
  Routes: { Value: !Ref Routes }
  Ip: { Condition: HasNat, Value: !Ref Address }
  Allocation: { Condition: HasNat, Value: !GetAtt Address.AllocationId }
  Gateway: { Condition: HasNat, Value: !GetAtt Gateway.NatGatewayId }
"#;

/// Runs a script; returns its output, which is JSON if it is not empty.
async fn run(cloud: &localcloud::LocalCloud, script: &str) -> Value {
    let mut command = cloud.command("bash").expect("the workspace has tools");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("template.yaml"), TEMPLATE).expect("written");
    let in_its_folder = command.current_dir(folder.path());
    let ran = in_its_folder
        .args(["-e", "-c", script])
        .output()
        .await
        .expect("bash runs");
    assert!(
        ran.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    serde_json::from_slice(&ran.stdout).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_has_a_nat_gateway_with_an_address_and_a_route_and_gives_them_back() {
    let cloud = start().await;
    let deploy =
        "aws cloudformation deploy --stack-name network --template-file template.yaml >/dev/null";
    run(&cloud, deploy).await;
    let outputs =
        "aws cloudformation describe-stacks --stack-name network --query 'Stacks[0].Outputs'";
    let described = run(&cloud, outputs).await;
    let output = |name: &str| {
        let outputs = described.as_array().expect("a list");
        let found = outputs.iter().find(|it| it["OutputKey"] == name);
        found
            .and_then(|it| it["OutputValue"].as_str())
            .expect(name)
            .to_owned()
    };
    let (allocation, gateway) = (output("Allocation"), output("Gateway"));
    // CloudFormation adds tags of its own.
    let address = format!(
        "aws ec2 describe-addresses --allocation-ids {allocation} \
         --query 'Addresses[0].[PublicIp, Tags[?Key==`Name`].Value]'"
    );
    let expected = json!([output("Ip"), ["nat"]]);
    assert_eq!(run(&cloud, &address).await, expected);
    let described = format!(
        "aws ec2 describe-nat-gateways --nat-gateway-ids {gateway} \
         --query 'NatGateways[0].[State, Tags[?Key==`Name`].Value]'"
    );
    let expected = json!(["available", ["nat"]]);
    assert_eq!(run(&cloud, &described).await, expected);
    let routes = format!(
        "aws ec2 describe-route-tables --route-table-ids {} \
         --query 'RouteTables[0].Routes[?DestinationCidrBlock==`0.0.0.0/0`].NatGatewayId'",
        output("Routes")
    );
    assert_eq!(run(&cloud, &routes).await, json!([gateway]));

    // Without the gateway the route and the address go too.
    run(&cloud, &format!("{deploy} --parameter-overrides Nat=false")).await;
    assert_eq!(run(&cloud, &routes).await, json!([]));
    let left = "aws ec2 describe-addresses --query 'Addresses[].AllocationId'";
    assert_eq!(run(&cloud, left).await, json!([]));
    let left = "aws ec2 describe-nat-gateways --filter Name=state,Values=available --query 'NatGateways[].NatGatewayId'";
    assert_eq!(run(&cloud, left).await, json!([]));
    // And with the whole stack.
    run(&cloud, &format!("{deploy} --parameter-overrides Nat=true")).await;
    run(
        &cloud,
        "aws cloudformation delete-stack --stack-name network
                 aws cloudformation wait stack-delete-complete --stack-name network",
    )
    .await;
    assert_eq!(
        run(
            &cloud,
            "aws ec2 describe-addresses --query 'Addresses[].AllocationId'"
        )
        .await,
        json!([])
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subnets_of_an_existing_network_are_found_with_their_zones() {
    let cloud = start().await;
    let client = cloud.client();
    let ec2 = async |params: &[(&str, &str)], wanted| {
        let answer = client.query("ec2", "2016-11-15", params).await;
        element(&answer.expect("an answer"), wanted)
    };
    let mut expected = Vec::new();
    let mut networks = Vec::new();
    for _ in 0..2 {
        let vpc = [("Action", "CreateVpc"), ("CidrBlock", "10.1.0.0/16")];
        let vpc = ec2(&vpc, "vpcId").await;
        for (zone, block) in [("us-east-1b", "10.1.0.0/24"), ("us-east-1c", "10.1.1.0/24")] {
            let subnet = [
                ("Action", "CreateSubnet"),
                ("VpcId", vpc.as_str()),
                ("CidrBlock", block),
                ("AvailabilityZone", zone),
            ];
            expected.push(json!([ec2(&subnet, "subnetId").await, vpc, zone]));
        }
        networks.push(vpc);
    }
    let ids = [&expected[0][0], &expected[3][0]].map(|id| id.as_str().expect("an id"));
    let members = "--query 'Subnets[].[SubnetId, VpcId, AvailabilityZone]'";
    let by_id = format!(
        "aws ec2 describe-subnets --subnet-ids {} {} {members}",
        ids[0], ids[1]
    );
    assert_eq!(run(&cloud, &by_id).await, json!([expected[0], expected[3]]));
    let of_vpc = format!(
        "aws ec2 describe-subnets --filters Name=vpc-id,Values={} {members}",
        networks[1]
    );
    assert_eq!(run(&cloud, &of_vpc).await, json!(expected[2..]));
    let in_zone = of_vpc.replace(
        "--filters",
        "--filters Name=availability-zone,Values=us-east-1c",
    );
    assert_eq!(run(&cloud, &in_zone).await, json!(expected[3..]));

    let vpcs = format!(
        "aws ec2 describe-vpcs --vpc-ids {} --query 'Vpcs[].CidrBlock'",
        networks[0]
    );
    assert_eq!(run(&cloud, &vpcs).await, json!(["10.1.0.0/16"]));
    for missing in [
        "describe-subnets --subnet-ids subnet-0",
        "describe-vpcs --vpc-ids vpc-0",
    ] {
        let refused = format!("! aws ec2 {missing} 2>err && grep -q NotFound err");
        run(&cloud, &refused).await;
    }
    cloud.stop().await;
}
