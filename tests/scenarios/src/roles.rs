//! Permissions of the environment's own roles, revoked and restored while it runs.

use anyhow::{Context, Result, ensure};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::TestEnvironment;

/// A permission that a role lacks until it is restored.
#[must_use = "the role lacks the permission until it is restored"]
pub struct RevokedPermission<'a> {
    env: &'a TestEnvironment,
    role: String,
    policy: String,
    document: String,
}

impl TestEnvironment {
    /// Removes an action from every statement of a role. `role` is its logical id in `infra/pipeline.yaml`.
    ///
    /// # Errors
    /// When the role does not exist, or does not allow the action.
    pub async fn revoke_permission(
        &self,
        role: &str,
        action: &str,
    ) -> Result<RevokedPermission<'_>> {
        let stack = format!("{}-pipeline", self.name);
        let request = [
            ("Action", "DescribeStackResource"),
            ("StackName", stack.as_str()),
            ("LogicalResourceId", role),
        ];
        let client = self.cloud.client();
        let resource = client
            .query("cloudformation", "2010-05-15", &request)
            .await?;
        let name = element(&resource, "PhysicalResourceId")?.to_owned();
        let request = [("Action", "ListRolePolicies"), ("RoleName", &name)];
        let policies = client.query("iam", "2010-05-08", &request).await?;
        let policy = element(&policies, "member")?.to_owned();
        let request = [
            ("Action", "GetRolePolicy"),
            ("RoleName", name.as_str()),
            ("PolicyName", &policy),
        ];
        let answer = client.query("iam", "2010-05-08", &request).await?;
        let document = percent_decode_str(element(&answer, "PolicyDocument")?)
            .decode_utf8()?
            .into_owned();
        let permission = RevokedPermission {
            env: self,
            role: name,
            policy,
            document,
        };
        let without = without(&permission.document, action).with_context(|| role.to_owned())?;
        permission.put(&without).await?;
        Ok(permission)
    }
}

impl RevokedPermission<'_> {
    /// Restores the permission.
    ///
    /// # Errors
    /// When IAM refuses it.
    pub async fn restore(self) -> Result<()> {
        self.put(&self.document).await
    }

    async fn put(&self, document: &str) -> Result<()> {
        let request = [
            ("Action", "PutRolePolicy"),
            ("RoleName", self.role.as_str()),
            ("PolicyName", &self.policy),
            ("PolicyDocument", document),
        ];
        let client = self.env.cloud.client();
        client.query("iam", "2010-05-08", &request).await?;
        Ok(())
    }
}

/// The policy without an action, and without the statements that then have no action left.
fn without(policy: &str, action: &str) -> Result<String> {
    let mut policy: Value = serde_json::from_str(policy)?;
    let statements = policy["Statement"]
        .as_array_mut()
        .context("no statements")?;
    let before = json!(statements);
    for statement in statements.iter_mut() {
        match &mut statement["Action"] {
            Value::Array(actions) => actions.retain(|one| one != action),
            one if one == action => *one = json!([]),
            _ => {}
        }
    }
    statements.retain(|statement| statement["Action"] != json!([]));
    ensure!(
        json!(statements) != before,
        "the policy does not allow {action}"
    );
    Ok(policy.to_string())
}

/// The text of the first element called `name`.
fn element<'a>(xml: &'a str, name: &str) -> Result<&'a str> {
    let after = xml.split_once(&format!("<{name}>"));
    let text = after.and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    Ok(text.with_context(|| format!("no {name} in {xml}"))?.0)
}
