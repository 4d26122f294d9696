//! A broken `switch-traffic`, which does not check the health of what it switches to. It proves that the
//! fault runs detect this.

use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum};
use lifecycle::aws_error::failed;
use lifecycle::{Baseline, StepError, sdk, serve::serve};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let listener = Baseline::from_env()?.listener_arn;
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&sdk::config().await);
    serve(move |input: Value| {
        let modify = elb.modify_listener().listener_arn(&listener);
        async move {
            let group = input["targetGroupArn"].as_str();
            let forward = Action::builder()
                .r#type(ActionTypeEnum::Forward)
                .set_target_group_arn(group.map(str::to_owned));
            let modified = modify.default_actions(forward.build()).send().await;
            modified.map_err(|error| failed("modify the listener", error))?;
            Ok::<_, StepError>(json!({
                "outcome": "switched",
                "activeDeploymentId": input["deploymentId"],
                "previousDeploymentId": null,
                "reason": "the input names it",
            }))
        }
    })
    .await
}
