#!/usr/bin/env bash
# Removes one environment: every deployment, even if it has visitors, and then the stacks <env>-pipeline and
# <env>-baseline with everything in them, including logs, and the settings. A network that the stack did not create stays.
# Reports what it keeps. A second run continues where the first one stopped.
#
#   ENV             name of the environment
#   CONFIRM         the same name again, to skip the question
#   DELETE_IMAGES   1 deletes the images too; without it, a repository that has images is kept
#
# Account, region and credentials come from the AWS CLI (AWS_PROFILE, AWS_REGION, ...).
set -euo pipefail

# Runs of the cleanup machine. One is enough unless another operation is still running or tasks stop slowly.
readonly MAX_ROUNDS=10
# A step that was running when its execution was stopped has ended after this time, because no function may take longer.
readonly SECONDS_FOR_STEPS=60
# Lambda releases the network interfaces of a function up to 40 minutes after the function is deleted.
readonly MAX_MINUTES_FOR_INTERFACES=60

fail() {
  echo "destroy: $*" >&2
  exit 2
}

say() {
  printf '==> %s\n' "$*"
}

# Whether a stack exists. The call may fail for other reasons, which do not mean that the stack does not exist.
stack_exists() {
  local answer
  if answer=$(aws cloudformation describe-stacks --stack-name "$1" --query 'Stacks[0].StackStatus' --output text 2>&1); then
    return 0
  fi
  [[ $answer == *"does not exist"* ]] || fail "cannot read stack $1: $answer"
  return 1
}

# Prints the identifier of a resource of a stack, or nothing if the stack does not have it.
resource_of() {
  aws cloudformation describe-stack-resources --stack-name "$1" --output text \
    --query "StackResources[?LogicalResourceId=='$2' && ResourceStatus!='DELETE_COMPLETE'].PhysicalResourceId"
}

# Prints the value of a parameter of the baseline.
stack_parameter() {
  aws cloudformation describe-stacks --stack-name "$baseline" --output text \
    --query "Stacks[0].Parameters[?ParameterKey=='$1'].ParameterValue"
}

# Whether the repository of this environment exists. A repository of that name without our tag is not ours.
repository_exists() {
  local arn tag
  if ! arn=$(aws ecr describe-repositories --repository-names "$ENV" --query 'repositories[0].repositoryArn' --output text 2>&1); then
    [[ $arn == *RepositoryNotFoundException* ]] || fail "cannot read repository $ENV: $arn"
    return 1
  fi
  tag=$(aws ecr list-tags-for-resource --resource-arn "$arn" --query "tags[?Key=='pulse:environment'].Value" --output text) ||
    fail "cannot read the tags of the repository $ENV"
  [[ $tag == "$ENV" ]]
}

# Reads the services of the cluster and the target groups of the network. Sets `present` to the names that are
# deployments, and `foreign` to the others that are in the way. Exits if a read fails, which does not mean that there are
# none.
read_deployments() {
  local services='' groups=''
  if [[ $cluster ]]; then
    services=$(aws ecs list-services --cluster "$cluster" --output text --query 'serviceArns[]') || fail "cannot list services"
  fi
  if [[ $network ]]; then
    groups=$(aws elbv2 describe-target-groups --output text --query "TargetGroups[?VpcId=='$network'].TargetGroupName") ||
      fail "cannot list target groups"
  fi
  present=$(names_in "$services $groups" | grep -E "^$ENV-[0-9]{8}-[0-9]{6}Z$" | xargs || true)
  # In a network that the stack did not create, others may have target groups.
  [[ $own_network ]] || groups=''
  foreign=$(names_in "$services $groups" | grep -vE "^$ENV-[0-9]{8}-[0-9]{6}Z$" | xargs || true)
}

# Prints the names in a list of names and ARNs, one per line.
names_in() {
  tr -s '[:space:]' '\n' <<<"$1" | sed -e 's|.*/||' -e '/^None$/d' -e '/^$/d' | sort -u
}

# Prints the ARNs of the target groups of the environment's deployments, one per line.
target_groups() {
  aws elbv2 describe-target-groups --output text \
    --query "TargetGroups[?VpcId=='$network' && starts_with(TargetGroupName, '$ENV-')].TargetGroupArn" | tr -s '[:space:]' '\n' |
    { grep -E ":targetgroup/$ENV-[0-9]{8}-[0-9]{6}Z/" || true; }
}

# The cleanup machine keeps protected deployments, and then the load balancer could not be deleted.
refuse_protected() {
  local protected
  [[ $network ]] || return 0
  protected=$(target_groups | xargs -r -n 20 aws elbv2 describe-tags --output text \
    --query "TagDescriptions[?Tags[?Key=='pulse:protected']].ResourceArn" --resource-arns) || fail "cannot read tags"
  [[ -z $protected ]] ||
    fail "these target groups are protected by the tag pulse:protected; remove it first (aws elbv2 remove-tags): $protected"
}

# Disables the push rule and the schedule.
disable_triggers() {
  local rule schedule
  rule=$(resource_of "$pipeline" ImagePushedRule)
  [[ -z $rule ]] || aws events disable-rule --name "$rule"
  schedule=$(resource_of "$pipeline" CleanupScheduleRule)
  if [[ $schedule ]]; then
    # There is no call that disables a schedule, so it is written again with only its state changed.
    aws scheduler update-schedule --cli-input-json "$(aws scheduler get-schedule --name "$schedule" --output json --query \
      "{Name: Name, GroupName: GroupName, ScheduleExpression: ScheduleExpression, FlexibleTimeWindow: FlexibleTimeWindow, Target: Target, State: 'DISABLED'}")" \
      >/dev/null
  fi
}

# Stops the executions of all three machines. The resources of a stopped deployment are deleted with the others. The
# tag of a stopped rollback is removed, because the deployment that it was bringing back is no longer wanted.
stop_executions() {
  local name machine executions execution
  for name in DeployStateMachine RollbackStateMachine CleanupStateMachine; do
    machine=$(resource_of "$pipeline" "$name")
    [[ $machine ]] || continue
    executions=$(aws stepfunctions list-executions --state-machine-arn "$machine" --status-filter RUNNING \
      --output text --query 'executions[].executionArn') || fail "cannot list the executions of $machine"
    for execution in $executions; do
      [[ $execution != None ]] || continue
      say "stopping ${execution#*:execution:}"
      calm_at=$((SECONDS + SECONDS_FOR_STEPS))
      aws stepfunctions stop-execution --execution-arn "$execution" --error Destroyed --cause "make destroy" >/dev/null
    done
  done
  [[ -z $network ]] ||
    target_groups | xargs -r -n 20 aws elbv2 remove-tags --tag-keys pulse:restoring-since --resource-arns
}

# Prints the ARN of the listener that infra/deploy.sh made, which is in no stack; nothing if there is none.
https_listener() {
  local balancer
  balancer=$(resource_of "$baseline" LoadBalancer)
  [[ -z $balancer ]] || aws elbv2 describe-listeners --load-balancer-arn "$balancer" --output text \
    --query "Listeners[?to_string(Port)=='443'].ListenerArn"
}

# Takes all traffic off the active deployment, because the cleanup machine never deletes an active one.
answer_503() {
  local listener action
  listener=$(https_listener)
  [[ $listener ]] || return 0
  action=$(aws elbv2 describe-listeners --listener-arns "$listener" --query 'Listeners[0].DefaultActions[0].Type' --output text)
  if [[ $action != fixed-response ]]; then
    say "the load balancer now answers 503"
    aws elbv2 modify-listener --listener-arn "$listener" --default-actions \
      'Type=fixed-response,FixedResponseConfig={StatusCode=503,ContentType=text/plain,MessageBody=Nothing is deployed here yet.}' \
      >/dev/null
  fi
}

# Runs the cleanup machine with an input and waits until it ends. Prints what is left while it waits. Sets `execution`.
clean_up() {
  local machine=$1 input=$2 status last=
  execution=$(aws stepfunctions start-execution --state-machine-arn "$machine" --input "$input" --query executionArn --output text)
  while true; do
    status=$(aws stepfunctions describe-execution --execution-arn "$execution" --query status --output text)
    [[ $status == RUNNING ]] || break
    read_deployments
    if [[ $present && $present != "$last" ]]; then
      say "still there: $present"
      last=$present
    fi
    sleep 3
  done
  if [[ $status != SUCCEEDED ]]; then
    say "the cleanup ended as $status: $(aws stepfunctions describe-execution --execution-arn "$execution" --query cause --output text)"
  fi
}

# Deletes every deployment with the cleanup machine.
remove_deployments() {
  local machine round
  read_deployments
  machine=$(resource_of "$pipeline" CleanupStateMachine)
  if [[ -z $machine ]]; then
    [[ -z $present ]] || fail "$pipeline has no cleanup machine; update it first: make deploy ENV=$ENV"
    return
  fi
  for ((round = 1; round <= MAX_ROUNDS; round++)); do
    # Repeated in each round, because a step that was running when its execution was stopped may have switched.
    answer_503
    clean_up "$machine" '{"removeEverything": true}'
    read_deployments
    [[ $present || $SECONDS -lt $calm_at ]] || return 0
    [[ $present ]] || say "checking again, in case a step was still running"
    sleep 10
  done
  echo "destroy: not removed: $present. The cleanup machine reports:" >&2
  clean_up "$machine" '{"removeEverything": true, "dryRun": true}' >&2
  aws stepfunctions describe-execution --execution-arn "$execution" --query output --output text |
    sed 's/},{/},\n{/g; s/^/destroy:   /' >&2
  exit 1
}

# Without this permission CloudFormation does not wait for the drain function's network interfaces. It would delete the
# role that Lambda needs to delete them, and they would stay forever.
refuse_without_access_to_interfaces() {
  aws ec2 describe-network-interfaces --filters "Name=group-id,Values=$1" --query 'length(NetworkInterfaces)' --output text >/dev/null ||
    fail "cannot list network interfaces, which needs the permission ec2:DescribeNetworkInterfaces; nothing was changed"
}

# A security group that a rule of another group names, such as that of a database, cannot be deleted.
refuse_named_groups() {
  local group groups users
  groups=$(aws cloudformation describe-stack-resources --stack-name "$baseline" --output text \
    --query "StackResources[?ResourceType=='AWS::EC2::SecurityGroup' && ResourceStatus!='DELETE_COMPLETE'].PhysicalResourceId") ||
    fail "cannot read the resources of stack $baseline"
  for group in $groups; do
    users=$(aws ec2 describe-security-groups --output text --query \
      "SecurityGroups[?IpPermissions[?UserIdGroupPairs[?GroupId=='$group']] || IpPermissionsEgress[?UserIdGroupPairs[?GroupId=='$group']]].GroupId") ||
      fail "cannot read the security groups"
    users=$(comm -13 <(names_in "$groups") <(names_in "$users") | xargs)
    [[ -z $users ]] ||
      fail "rules of the security groups $users name the security group $group of $ENV; delete these rules first"
  done
}

# Waits until no network interface uses a security group.
wait_for_interfaces() {
  local group=$1 count deadline=$((SECONDS + MAX_MINUTES_FOR_INTERFACES * 60))
  while true; do
    count=$(aws ec2 describe-network-interfaces --filters "Name=group-id,Values=$group" \
      --query 'length(NetworkInterfaces)' --output text)
    [[ $count != 0 ]] || return 0
    ((SECONDS < deadline)) || fail "$count network interfaces of the drain function still exist; run this again later"
    say "waiting for Lambda to release $count network interfaces (up to 40 minutes)"
    sleep 30
  done
}

# Deletes the parameter that SETTINGS of infra/deploy.sh made.
delete_settings() {
  local answer
  answer=$(aws ssm delete-parameter --name "/pulse/$ENV/settings" 2>&1) || [[ $answer == *ParameterNotFound* ]] ||
    fail "cannot delete the parameter /pulse/$ENV/settings: $answer"
}

delete_stack() {
  say "$1: removing"
  aws cloudformation delete-stack --stack-name "$1"
  if ! aws cloudformation wait stack-delete-complete --stack-name "$1"; then
    echo "destroy: the stack $1 was not deleted:" >&2
    aws cloudformation describe-stack-events --stack-name "$1" --output text \
      --query "StackEvents[?ResourceStatus=='DELETE_FAILED'].[LogicalResourceId, ResourceStatusReason]" |
      sed 's/^/destroy:   /' >&2 || true
    exit 1
  fi
}

: "${ENV:=}" "${CONFIRM:=}" "${DELETE_IMAGES:=}"
[[ $ENV =~ ^[a-z][a-z0-9-]{0,13}[a-z0-9]$ ]] || fail "which environment? For example: make destroy ENV=test"
baseline=$ENV-baseline
pipeline=$ENV-pipeline

account=$(aws sts get-caller-identity --query Account --output text) ||
  fail "the AWS CLI has no valid credentials (try: aws sts get-caller-identity)"
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
[[ -n $region ]] || fail "no region: set AWS_REGION, or a region in the AWS CLI's profile"
export AWS_REGION=$region AWS_DEFAULT_REGION=$region

has_baseline='' has_pipeline='' has_repository='' has_zone='' cluster='' own_network='' network='' drain_group='' present='' foreign='' calm_at=0
if stack_exists "$baseline"; then has_baseline=1; fi
if stack_exists "$pipeline"; then has_pipeline=1; fi
if repository_exists; then has_repository=1; fi
[[ $has_baseline || $has_pipeline || ($has_repository && $DELETE_IMAGES == 1) ]] ||
  fail "there is no environment $ENV in account $account, region $region"

if [[ $has_baseline ]]; then
  has_zone=$(stack_parameter HostedZoneId)
  cluster=$(resource_of "$baseline" Cluster)
  own_network=$(resource_of "$baseline" Vpc)
  network=${own_network:-$(stack_parameter VpcId)}
  drain_group=$(resource_of "$baseline" DrainSecurityGroup)
  read_deployments
  [[ -z $foreign ]] || fail "$ENV has services or target groups that are not deployments; remove them first: $foreign"
  refuse_protected
  [[ -z $drain_group ]] || refuse_without_access_to_interfaces "$drain_group"
  refuse_named_groups
  [[ -z $present || $has_pipeline ]] || fail "the stack $pipeline, which removes deployments, does not exist; run make deploy ENV=$ENV first"
fi

if [[ $CONFIRM != "$ENV" ]]; then
  cat >&2 <<END
This removes the environment $ENV of account $account in region $region:
  deployments, even if they have visitors: ${present:-none}
  the load balancer and its address, the functions and machines, all logs, the drain secret, the settings
  the network: $([[ $network && -z $own_network ]] && echo "kept, because the stack did not create it" || echo "deleted too")
  images in the repository: $([[ $DELETE_IMAGES == 1 ]] && echo "deleted too" || echo "kept (DELETE_IMAGES=1 deletes them too)")
END
  [[ -t 0 ]] || fail "to skip the question, set CONFIRM=$ENV"
  read -r -p "Type the environment's name to continue: " answer
  [[ $answer == "$ENV" ]] || fail "nothing was changed"
fi

if [[ $has_pipeline ]]; then
  if [[ $has_baseline ]]; then
    disable_triggers
    stop_executions
    remove_deployments
  fi
  # The pipeline imports from the baseline, so it is deleted first. CloudFormation waits until Lambda has released the
  # network interfaces of the drain function.
  say "$pipeline: this takes up to 45 minutes on AWS"
  delete_stack "$pipeline"
fi
delete_settings
if [[ $has_baseline ]]; then
  [[ -z $drain_group ]] || wait_for_interfaces "$drain_group"
  # First, because a certificate that a listener uses cannot be deleted.
  listener=$(https_listener)
  [[ -z $listener ]] || aws elbv2 delete-listener --listener-arn "$listener"
  delete_stack "$baseline"
fi

kept_images=
if [[ $has_repository ]] && repository_exists; then
  image=$(aws ecr list-images --repository-name "$ENV" --max-items 1 --output text --query 'imageIds[0].imageDigest')
  if [[ $DELETE_IMAGES == 1 || $image != *sha256:* ]]; then
    say "$ENV: removing the repository"
    aws ecr delete-repository --repository-name "$ENV" --force >/dev/null
  else
    kept_images=1
  fi
fi

say "$ENV is deleted. Kept:"
if [[ $kept_images ]]; then
  echo "    the repository $ENV with its images, perhaps the only copies; make deploy adopts it again, make destroy ENV=$ENV DELETE_IMAGES=1 deletes it"
fi
echo "    the package bucket, which all environments share; to remove it after the last one: aws s3 rb --force s3://pulse-deploy-$account-$region"
if [[ $has_zone ]]; then
  echo "    the record in the hosted zone $has_zone that proves to ACM that the domain is yours; AWS never removes it"
fi
# Everything is removed by now, so a read that fails is reported and does not fail the script.
if secrets=$(aws secretsmanager list-secrets --filters "Key=name,Values=$ENV/" --output text \
  --query "SecretList[?starts_with(Name, '$ENV/')].Name"); then
  for secret in $secrets; do
    echo "    the secret $secret, which you made: aws secretsmanager delete-secret --secret-id $secret"
  done
else
  echo "    secrets $ENV/… that you made, which could not be listed"
fi
if parameters=$(aws ssm describe-parameters --parameter-filters "Key=Path,Option=Recursive,Values=/pulse/$ENV" --output text \
  --query "Parameters[?starts_with(Name, '/pulse/$ENV/')].Name"); then
  for parameter in $parameters; do
    echo "    the parameter $parameter, which you made: aws ssm delete-parameter --name $parameter"
  done
else
  echo "    parameters /pulse/$ENV/… that you made, which could not be listed"
fi
echo "    inactive task definitions, which cannot be used and cost nothing"
echo "    the topic's key for 7 days, which AWS requires and does not charge for"
