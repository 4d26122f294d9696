//! Task definitions, of which a caller may register what it has described.

use localcloud::LocalCloud;
use serde_json::{Value, json};

use crate::cloud;

async fn ecs(cloud: &LocalCloud, operation: &str, body: Value) -> Result<Value, String> {
    let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
    let answer = cloud.client().json("ecs", &target, body).await;
    answer.map_err(|error| format!("{}: {}", error.code, error.message))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_definition_keeps_what_it_was_registered_with_and_gets_nothing_else() {
    let cloud = cloud::start().await;
    let definition = json!({
        "family": "base",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "512",
        "enableFaultInjection": true,
        "aMemberThatIsNew": {"of": ["AWS"]},
        "volumes": [{"name": "files", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}],
        "containerDefinitions": [{
            "name": "app", "image": "image", "essential": true, "cpu": 0,
            "restartPolicy": {"enabled": true}, "aMemberThatIsNew": 1,
        }],
    });
    let mut request = definition.clone();
    request["tags"] = json!([{"key": "pulse:environment", "value": "test"}]);
    ecs(&cloud, "RegisterTaskDefinition", request.clone())
        .await
        .expect("registered");
    let describe = |reference: &str, include: &[&str]| {
        let body = json!({"taskDefinition": reference, "include": include});
        ecs(&cloud, "DescribeTaskDefinition", body)
    };
    let described = describe("base", &[]).await.expect("described");
    assert_eq!(described["tags"], json!([]), "tags are not included");
    let with_tags = describe("base", &["TAGS"]).await.expect("described");
    assert_eq!(with_tags["tags"], request["tags"]);

    let mut copy = described["taskDefinition"].clone();
    let members = copy.as_object_mut().expect("an object");
    for added in [
        "taskDefinitionArn",
        "revision",
        "status",
        "compatibilities",
        "registeredAt",
        "registeredBy",
    ] {
        assert!(members.remove(added).is_some(), "{added}");
    }
    assert_eq!(members.remove("placementConstraints"), Some(json!([])));
    assert_eq!(copy, definition);

    // The family alone is the latest ACTIVE revision.
    ecs(&cloud, "RegisterTaskDefinition", definition)
        .await
        .expect("registered");
    let second = json!({"taskDefinition": "base:2"});
    ecs(&cloud, "DeregisterTaskDefinition", second)
        .await
        .expect("deregistered");
    let latest = describe("base", &[]).await.expect("described");
    assert_eq!(latest["taskDefinition"]["revision"], 1);
    let inactive = describe("base:2", &[]).await.expect("described");
    assert_eq!(inactive["taskDefinition"]["status"], "INACTIVE");
    assert_eq!(
        describe("none", &[]).await.unwrap_err(),
        "ClientException: Unable to describe task definition."
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_definition_of_a_template_has_the_names_of_the_api_at_all_depths() {
    let cloud = cloud::start().await;
    let template = json!({"Resources": {"Base": {"Type": "AWS::ECS::TaskDefinition", "Properties": {
        "Family": "base",
        "NetworkMode": "awsvpc",
        "RequiresCompatibilities": ["FARGATE"],
        "Cpu": "256",
        "Memory": "512",
        "EphemeralStorage": {"SizeInGiB": 30},
        "Volumes": [{"Name": "files", "EFSVolumeConfiguration": {"FilesystemId": "fs-1"}}],
        "ContainerDefinitions": [
            {
                "Name": "app",
                "Image": "image",
                "Secrets": [{"Name": "A", "ValueFrom": "/a"}],
                "DependsOn": [{"ContainerName": "sidecar", "Condition": "HEALTHY"}],
                "DockerLabels": {"Own": "Name"},
            },
            {
                "Name": "sidecar",
                "Image": "image",
                "HealthCheck": {"Command": ["CMD", "/check"]},
            },
        ],
    }}}});
    let create = [
        ("Action", "CreateStack"),
        ("StackName", "base"),
        ("TemplateBody", &template.to_string()),
    ];
    let version = "2010-05-15";
    let created = cloud.client().query("cloudformation", version, &create);
    created.await.expect("created");
    let definition = loop {
        let body = json!({"taskDefinition": "base"});
        if let Ok(mut described) = ecs(&cloud, "DescribeTaskDefinition", body).await {
            break described["taskDefinition"].take();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(definition["ephemeralStorage"]["sizeInGiB"], 30);
    let volume = &definition["volumes"][0];
    assert_eq!(volume["efsVolumeConfiguration"]["fileSystemId"], "fs-1");
    let [app, sidecar] = [0, 1].map(|index| &definition["containerDefinitions"][index]);
    assert_eq!(app["secrets"], json!([{"name": "A", "valueFrom": "/a"}]));
    assert_eq!(app["dependsOn"][0]["containerName"], "sidecar");
    assert_eq!(app["dockerLabels"], json!({"Own": "Name"}));
    assert_eq!(sidecar["healthCheck"]["command"][1], "/check");
    for empty in ["ipcMode", "pidMode", "taskRoleArn", "executionRoleArn"] {
        assert_eq!(definition.get(empty), None, "{empty}");
    }
    cloud.stop().await;
}
