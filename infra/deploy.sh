#!/usr/bin/env bash
# Deploys one environment: builds the functions, and then deploys the stacks <env>-baseline and <env>-pipeline.
# A second run changes only what differs, and never the default action of the load balancer's HTTPS listener. That listener
# is in no stack: this script creates it once (docs/adr/0005-the-template-does-not-own-live-traffic.md).
#
#   ENV                   name of the environment, at most 15 characters
#   DOMAIN                name under which users reach the application
#   CERTIFICATE_ARN       an issued ACM certificate for DOMAIN in this region, or
#   HOSTED_ZONE_ID        the Route 53 hosted zone of DOMAIN, to create the certificate and an alias record
#   ARCH                  architecture of the functions, x86_64 (default) or arm64; stays the same if left out later
#   IMAGE_ARCH            architecture of the application's images; default: ARCH; stays the same if left out later
#   BASELINE_PARAMETERS   more parameters of infra/baseline.yaml, such as "NatGateway=false VpcCidr=10.1.0.0/16"
#   PIPELINE_PARAMETERS   more parameters of infra/pipeline.yaml, such as "HealthTimeoutSeconds=900"
#   SETTINGS              a file of JSON with the settings of all deployments, which becomes the parameter
#                         /pulse/<env>/settings; the parameter stays the same if left out
#   SKIP_BUILD            1 deploys the packages that are already in target/lambda, and builds nothing
#   CHECK_SETTINGS        the program that checks SETTINGS; default: check-settings, which is built with cargo unless
#                         SKIP_BUILD=1
#
# DOMAIN and the certificate are required the first time and optional later. A CERTIFICATE_ARN that differs from the
# listener's replaces it. Account, region and credentials come from the AWS CLI (AWS_PROFILE, AWS_REGION, ...).
set -euo pipefail
: "${SETTINGS:=}"
[[ -z $SETTINGS || $SETTINGS == /* ]] || SETTINGS=$PWD/$SETTINGS
[[ ${CHECK_SETTINGS:-} != */* || $CHECK_SETTINGS == /* ]] || CHECK_SETTINGS=$PWD/$CHECK_SETTINGS
cd "$(dirname "$0")/.."

# A parameter of the tier Standard has 4 KB at most, and one of the tier Advanced 8 KB.
# https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html
readonly MAX_BYTES_OF_SETTINGS=8192

fail() {
  echo "deploy: $*" >&2
  exit 2
}

say() {
  printf '==> %s\n' "$*"
}

# Prints the status of a stack; nothing if the stack does not exist.
stack_status() {
  local answer
  if answer=$(aws cloudformation describe-stacks --stack-name "$1" --query 'Stacks[0].StackStatus' --output text 2>&1); then
    echo "$answer"
  elif [[ $answer != *"does not exist"* ]]; then
    fail "cannot read stack $1: $answer"
  fi
}

# Waits until no operation on a stack is under way. Sets `state` to `new`, `failed` (its creation failed, so that it can
# only be deleted) or `ready` (it can be updated), and exits if an operator has to act first. The values are those of
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
settle_stack() {
  local stack=$1 status last=
  while true; do
    status=$(stack_status "$stack")
    case $status in
    # A stack in review has a change set and no resources.
    '' | REVIEW_IN_PROGRESS | DELETE_COMPLETE)
      state=new
      return
      ;;
    CREATE_FAILED | ROLLBACK_COMPLETE | ROLLBACK_FAILED)
      state=failed
      return
      ;;
    CREATE_COMPLETE | UPDATE_COMPLETE | UPDATE_ROLLBACK_COMPLETE | IMPORT_COMPLETE | IMPORT_ROLLBACK_COMPLETE)
      state=ready
      return
      ;;
    CREATE_IN_PROGRESS | ROLLBACK_IN_PROGRESS | DELETE_IN_PROGRESS | \
      UPDATE_IN_PROGRESS | UPDATE_COMPLETE_CLEANUP_IN_PROGRESS | UPDATE_ROLLBACK_IN_PROGRESS | \
      UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS | IMPORT_IN_PROGRESS | IMPORT_ROLLBACK_IN_PROGRESS)
      [[ $status == "$last" ]] || say "$stack: waiting for another operation, $status"
      last=$status
      sleep 10
      ;;
    UPDATE_FAILED)
      fail "an update of $stack failed without being undone; run: aws cloudformation rollback-stack --stack-name $stack"
      ;;
    UPDATE_ROLLBACK_FAILED)
      fail "an update of $stack failed and could not be undone; correct what its events name, then run: aws cloudformation continue-update-rollback --stack-name $stack"
      ;;
    IMPORT_ROLLBACK_FAILED)
      fail "an import into $stack failed and could not be undone; correct what its events name in the console of CloudFormation"
      ;;
    DELETE_FAILED)
      fail "a deletion of $stack failed; complete it with: make destroy ENV=$ENV"
      ;;
    *) fail "$stack has the status $status, which this script does not know" ;;
    esac
  done
}

# Prints the value of an output of a stack.
stack_output() {
  aws cloudformation describe-stacks --stack-name "$1" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='$2'].OutputValue"
}

# Prints the value of a parameter with which a stack was last deployed.
stack_parameter() {
  aws cloudformation describe-stacks --stack-name "$1" --output text \
    --query "Stacks[0].Parameters[?ParameterKey=='$2'].ParameterValue"
}

# Whether a stack has a resource.
stack_has() {
  local found
  found=$(aws cloudformation describe-stack-resources --stack-name "$1" --output text \
    --query "StackResources[?LogicalResourceId=='$2' && ResourceStatus!='DELETE_COMPLETE'].PhysicalResourceId") ||
    fail "cannot read the resources of stack $1"
  [[ $found ]]
}

remove_failed_creation() {
  say "$1: removing the remains of an earlier creation that failed"
  aws cloudformation delete-stack --stack-name "$1"
  aws cloudformation wait stack-delete-complete --stack-name "$1"
}

# Reports why a stack failed, and exits. The oldest event comes first: the first failure is the cause, and the others are
# cancelled because of it. A template that is refused outright leaves no events; the AWS CLI has reported the reason.
fail_with_events() {
  local stack=$1 started=$2
  echo "deploy: stack $stack failed" >&2
  aws cloudformation describe-stack-events --stack-name "$stack" --output text \
    --query "reverse(StackEvents[?Timestamp>='$started' && contains(ResourceStatus, 'FAILED')].[LogicalResourceId, ResourceStatusReason])" 2>/dev/null |
    sed 's/^/deploy:   /' >&2 || true
  exit 1
}

# Creates or updates a stack. The arguments are its name, its template, and then more arguments of `aws cloudformation
# deploy`.
deploy_stack() {
  local stack=$1 template=$2 started answer state
  shift 2

  settle_stack "$stack"
  case $state in
  ready) say "$stack: updating" ;;
  new) say "$stack: creating (takes a few minutes on AWS)" ;;
  failed)
    remove_failed_creation "$stack"
    say "$stack: creating (takes a few minutes on AWS)"
    ;;
  esac
  started=$(date -u +%Y-%m-%dT%H:%M:%S)
  if answer=$(aws cloudformation deploy --stack-name "$stack" --template-file "$template" --no-fail-on-empty-changeset "$@" 2>&1); then
    [[ $answer != *"No changes to deploy"* ]] || say "$stack: nothing to change"
  else
    echo "$answer" >&2
    fail_with_events "$stack" "$started"
  fi
}

# Whether an earlier environment of this name left its repository. A repository without our tag is not ours.
repository_is_left() {
  local arn tag
  if ! arn=$(aws ecr describe-repositories --repository-names "$ENV" --query 'repositories[0].repositoryArn' --output text 2>&1); then
    [[ $arn == *RepositoryNotFoundException* ]] || fail "cannot read repository $ENV: $arn"
    return 1
  fi
  tag=$(aws ecr list-tags-for-resource --resource-arn "$arn" --query "tags[?Key=='pulse:environment'].Value" --output text) ||
    fail "cannot read the tags of the repository $ENV"
  [[ $tag == "$ENV" ]] || fail "the repository $ENV exists and does not belong to pulse-deploy; choose another name for the environment"
}

# Creates the baseline and imports the repository that was kept; `aws cloudformation deploy` cannot import.
create_baseline_around_repository() {
  local pair value template parameters=() started
  started=$(date -u +%Y-%m-%dT%H:%M:%S)
  local change_set=with-repository-${started//[^0-9]/}
  say "$baseline: creating, with the images that were kept (takes a few minutes on AWS)"
  for pair in "$@"; do
    value=${pair#*=}
    # An unescaped comma would begin another value.
    parameters+=("ParameterKey=${pair%%=*},ParameterValue=${value//,/\\,}")
  done
  # A resource is imported by a name that the template states literally:
  # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-automatically.html
  # Should the creation fail, its undo must not delete images that existed before.
  template=$(sed -e "s/^\( *RepositoryName:\) !Ref Environment$/\1 $ENV/" \
    -e 's/^\( *DeletionPolicy:\) RetainExceptOnCreate$/\1 Retain/' infra/baseline.yaml)
  [[ $template == *"RepositoryName: $ENV"* ]] || fail "infra/baseline.yaml does not name its repository after the environment"
  aws cloudformation create-change-set --stack-name "$baseline" --change-set-name "$change_set" --change-set-type CREATE \
    --import-existing-resources --template-body "$template" --capabilities CAPABILITY_IAM \
    --parameters "${parameters[@]}" >/dev/null
  aws cloudformation wait change-set-create-complete --stack-name "$baseline" --change-set-name "$change_set" ||
    fail "$(aws cloudformation describe-change-set --stack-name "$baseline" --change-set-name "$change_set" --query StatusReason --output text)"
  aws cloudformation execute-change-set --stack-name "$baseline" --change-set-name "$change_set"
  aws cloudformation wait stack-create-complete --stack-name "$baseline" || fail_with_events "$baseline" "$started"
}

# With the policy, CloudFormation refuses to replace or delete what deployments run on, before anything changes. It refuses
# the policy itself if that names a resource that the stack does not have.
protect_baseline() {
  local policy network
  policy=$(<infra/baseline-stack-policy.json)
  network=$(stack_parameter "$baseline" VpcId)
  [[ -z $network ]] || policy=$(grep -vE '"LogicalResourceId/(Vpc|(Public|Private)Subnet(One|Two))"' <<<"$policy")
  aws cloudformation set-stack-policy --stack-name "$baseline" --stack-policy-body "$policy"
}

# Sets `listener` to the load balancer's HTTPS listener on port 443, and creates it if there is none. Until the first
# deployment it answers 503. An operator's listeners have other ports.
ensure_listener() {
  local balancer certificate
  balancer=$(stack_output "$baseline" LoadBalancerArn)
  listener=$(aws elbv2 describe-listeners --load-balancer-arn "$balancer" --output text \
    --query "Listeners[?to_string(Port)=='443'].ListenerArn") || fail "cannot read the listeners of $balancer"
  [[ -z $listener ]] || return 0
  say "$baseline: creating the listener"
  certificate=${CERTIFICATE_ARN:-$(stack_output "$baseline" CertificateArn)}
  listener=$(aws elbv2 create-listener --load-balancer-arn "$balancer" --port 443 --protocol HTTPS \
    --ssl-policy ELBSecurityPolicy-TLS13-1-2-2021-06 \
    --certificates "CertificateArn=$certificate" --default-actions \
    'Type=fixed-response,FixedResponseConfig={StatusCode=503,ContentType=text/plain,MessageBody=Nothing is deployed here yet.}' \
    --tags "Key=pulse:environment,Value=$ENV" --query 'Listeners[0].ListenerArn' --output text)
}

# Replaces the listener's certificate with a call that leaves the default action unchanged.
change_certificate() {
  local current
  current=$(aws elbv2 describe-listeners --listener-arns "$listener" --output text \
    --query 'Listeners[0].Certificates[0].CertificateArn')
  if [[ $current != "$CERTIFICATE_ARN" ]]; then
    say "$baseline: replacing the listener's certificate"
    aws elbv2 modify-listener --listener-arn "$listener" --certificates "CertificateArn=$CERTIFICATE_ARN" >/dev/null
  fi
}

# Creates the bucket that carries packages to CloudFormation; all environments of this account and region share it.
# A new bucket encrypts its objects and blocks public access by default:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-encryption.html
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
# Nothing in it expires, because an unchanged stack names its packages for ever. Buckets of earlier versions have a rule by
# which packages expire.
ensure_package_bucket() {
  # Anyone can own a bucket of this name, and what is in it gets deployed, so the owner is checked.
  if aws s3api head-bucket --bucket "$bucket" --expected-bucket-owner "$account" >/dev/null 2>&1; then
    aws s3api delete-bucket-lifecycle --bucket "$bucket" --expected-bucket-owner "$account"
    return
  fi
  say "$bucket: creating the bucket for packages"
  # us-east-1 is the only region that must not be named.
  if [[ $region == us-east-1 ]]; then
    aws s3api create-bucket --bucket "$bucket" >/dev/null
  else
    aws s3api create-bucket --bucket "$bucket" --create-bucket-configuration "LocationConstraint=$region" >/dev/null
  fi || fail "cannot create the bucket $bucket; if another account owns that name, use another region"
}

# Checks what would let the creation fail late, or wait for hours: ACM issues a certificate only for a name that the
# internet asks this zone for.
check_hosted_zone() {
  local answer name private servers server delegated record
  answer=$(aws route53 get-hosted-zone --id "$HOSTED_ZONE_ID" --output text \
    --query '[HostedZone.Name, HostedZone.Config.PrivateZone, DelegationSet.NameServers[0], DelegationSet.NameServers[1], DelegationSet.NameServers[2], DelegationSet.NameServers[3]]') ||
    fail "cannot read the hosted zone $HOSTED_ZONE_ID"
  read -r name private servers <<<"$answer"
  name=${name%.}
  [[ $private == False ]] ||
    fail "the hosted zone $HOSTED_ZONE_ID ($name) is private; give a public one, or give CERTIFICATE_ARN"
  [[ $DOMAIN == "$name" || $DOMAIN == *".$name" ]] ||
    fail "the hosted zone $HOSTED_ZONE_ID is for $name, and $DOMAIN is not in it"
  record=$(aws route53 list-resource-record-sets --hosted-zone-id "$HOSTED_ZONE_ID" --output text \
    --query "ResourceRecordSets[?Name=='$DOMAIN.' && (Type=='A' || Type=='AAAA' || Type=='CNAME')].Type") ||
    fail "cannot read the records of the hosted zone $HOSTED_ZONE_ID"
  [[ -z $record ]] ||
    fail "the hosted zone $HOSTED_ZONE_ID already has a record for $DOMAIN ($(xargs <<<"$record")); delete it, or give CERTIFICATE_ARN and change it yourself later"
  if ! delegated=$(name_servers "$name"); then
    say "whether $name is delegated to the hosted zone was not checked, because DNS could not be asked (dig or nslookup)"
    return
  fi
  for server in $servers; do
    [[ " $(tr -s '[:space:]' ' ' <<<"$delegated") " != *" $server. "* ]] || return 0
  done
  fail "$name is not delegated to the hosted zone $HOSTED_ZONE_ID; where $name is registered, set its name servers to ${servers//$'\t'/, }"
}

# Prints the value that a parameter of the baseline has after this run: the one that is given, else that of the stack.
baseline_parameter() {
  local pair value=
  for pair in "${baseline_parameters[@]}"; do
    [[ $pair != "$1="* ]] || value=given${pair#*=}
  done
  if [[ $value ]]; then
    echo "${value#given}"
  elif [[ -z $is_new ]]; then
    stack_parameter "$baseline" "$1"
  fi
}

# Checks a network that exists before anything is made. CloudFormation would report a mistake late, and deployments would
# report others.
check_network() {
  local vpc public private name before after subnets public_zones private_zones unreached missing=() differing=()
  [[ " ${baseline_parameters[*]}" =~ \ (VpcId|PublicSubnetIds|PrivateSubnetIds)= ]] || return 0
  if [[ -z $is_new ]]; then
    # The pipeline imports these two, and an export cannot change while it is imported.
    for name in VpcId PrivateSubnetIds; do
      before=$(stack_parameter "$baseline" "$name")
      after=$(baseline_parameter "$name")
      [[ $before == "$after" ]] || differing+=("$name")
    done
    [[ ${#differing[@]} == 0 ]] ||
      fail "the network of $ENV cannot change after its creation; leave out of BASELINE_PARAMETERS: ${differing[*]}"
  fi
  vpc=$(baseline_parameter VpcId)
  public=$(baseline_parameter PublicSubnetIds)
  private=$(baseline_parameter PrivateSubnetIds)
  [[ $vpc$public$private ]] || return 0
  [[ $vpc ]] || missing+=(VpcId)
  [[ $public ]] || missing+=(PublicSubnetIds)
  [[ $private ]] || missing+=(PrivateSubnetIds)
  [[ ${#missing[@]} == 0 ]] ||
    fail "a network that exists needs VpcId, PublicSubnetIds and PrivateSubnetIds in BASELINE_PARAMETERS; missing: ${missing[*]}"
  subnets=$(aws ec2 describe-subnets --filters "Name=subnet-id,Values=$public,$private" --output text \
    --query 'Subnets[].[SubnetId, VpcId, AvailabilityZone]') || fail "cannot read the subnets of $vpc"
  public_zones=$(zones_of PublicSubnetIds "$public" "$vpc" "$subnets")
  private_zones=$(zones_of PrivateSubnetIds "$private" "$vpc" "$subnets")
  # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/application-load-balancers.html#subnets-load-balancer
  [[ -z $(uniq -d <<<"$public_zones") ]] ||
    fail "PublicSubnetIds has more than one subnet in the zone $(uniq -d <<<"$public_zones" | xargs), and a load balancer takes one"
  unreached=$(comm -13 <(echo "$public_zones") <(uniq <<<"$private_zones") | xargs)
  [[ -z $unreached ]] ||
    fail "PrivateSubnetIds has a subnet in the zone $unreached and PublicSubnetIds has none; a load balancer reaches tasks only in its own zones"
}

# Prints the zones of the subnets that a parameter names, sorted, one line for each subnet. Exits if a subnet does not exist
# or is in another network, or if all are in one zone.
zones_of() {
  local name=$1 ids=$2 vpc=$3 subnets=$4 id network zone zones=
  for id in ${ids//,/ }; do
    read -r network zone < <(awk -v id="$id" '$1 == id { print $2, $3 }' <<<"$subnets") ||
      fail "the subnet $id of $name does not exist in the region $region"
    [[ $network == "$vpc" ]] || fail "the subnet $id of $name is in the network $network, not in $vpc"
    zones+=$zone$'\n'
  done
  zones=$(sort <<<"${zones%$'\n'}")
  [[ $(uniq <<<"$zones") == *$'\n'* ]] ||
    fail "the subnets of $name are all in the zone $(uniq <<<"$zones"); a load balancer and the tasks of a deployment need two zones or more"
  echo "$zones"
}

# Checks the file of settings before anything is made, as the first step of a deployment does after a push.
check_settings() {
  local checker=() answer
  [[ -f $SETTINGS && -r $SETTINGS ]] || fail "SETTINGS names $SETTINGS, which is not a file that can be read"
  if [[ $CHECK_SETTINGS ]]; then
    checker=("$CHECK_SETTINGS")
  elif [[ $SKIP_BUILD != 1 ]]; then
    say "building check-settings"
    cargo build --quiet --locked --package settings --bin check-settings ||
      fail "cannot build check-settings, which checks $SETTINGS; nothing was changed"
    checker=(cargo run --quiet --locked --package settings --bin check-settings --)
  fi
  if [[ ${#checker[@]} == 0 ]]; then
    check_syntax_of_settings
    say "$SETTINGS: only the syntax was checked, because SKIP_BUILD=1 builds no check-settings; if a field is wrong, every push will be refused with its name"
  else
    answer=$("${checker[@]}" "$ENV" "$SETTINGS" 2>&1) || fail "${answer:-${checker[0]} failed}"
    say "${answer:-$SETTINGS was checked}"
  fi
}

# Checks what can be checked without check-settings: that Parameter Store takes the file, and that it is JSON.
check_syntax_of_settings() {
  local size why
  size=$(($(wc -c <"$SETTINGS")))
  ((size <= MAX_BYTES_OF_SETTINGS)) ||
    fail "$SETTINGS has $size bytes, and Parameter Store takes $MAX_BYTES_OF_SETTINGS at most"
  # https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
  ! grep -qF '{{' "$SETTINGS" || fail "$SETTINGS contains {{, which Parameter Store refuses"
  command -v python3 >/dev/null || fail "SETTINGS needs python3, which reads the file"
  why=$(
    python3 - "$SETTINGS" 2>&1 <<'END'
import json
import sys


def refuse(constant):
    raise ValueError(f"{constant} is not a value of JSON")


try:
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file, parse_constant=refuse)
except (ValueError, RecursionError) as error:
    sys.exit(f"is not JSON: {error}")
if not isinstance(document, dict):
    sys.exit("is not a JSON object, which begins with a brace")
END
  ) || fail "$SETTINGS $why"
}

# Stores the settings if they differ, and shows how. The next deployment is the first to use them.
put_settings() {
  local name=/pulse/$ENV/settings old new
  new=$(<"$SETTINGS")
  # This call answers nothing for a parameter that does not exist; the call for a single one fails.
  old=$(aws ssm get-parameters --names "$name" --query 'Parameters[].Value' --output text) ||
    fail "cannot read the parameter $name"
  if [[ $old == "$new" ]]; then
    say "$name: nothing to change"
  elif [[ $old ]]; then
    say "$name: updating"
    diff -u --label before --label after <(echo "$old") <(echo "$new") || true
    aws ssm put-parameter --name "$name" --type String --tier Intelligent-Tiering --overwrite --value "$new" >/dev/null
    # A call that overwrites takes no tags, and an operator may have created the parameter.
    aws ssm add-tags-to-resource --resource-type Parameter --resource-id "$name" --tags "Key=pulse:environment,Value=$ENV"
  else
    say "$name: creating"
    diff -u --label before --label after /dev/null <(echo "$new") || true
    aws ssm put-parameter --name "$name" --type String --tier Intelligent-Tiering --value "$new" \
      --tags "Key=pulse:environment,Value=$ENV" >/dev/null
  fi
}

# Prints the name servers of a domain, each with a dot at its end. Fails if DNS cannot be asked.
name_servers() {
  if command -v dig >/dev/null; then
    dig +short NS "$1." 2>/dev/null
  else
    nslookup -type=NS "$1." 2>/dev/null | sed -n 's/.*nameserver = *\(.*[^.]\)\.*$/\1./p'
  fi
}

: "${ENV:=}" "${DOMAIN:=}" "${CERTIFICATE_ARN:=}" "${HOSTED_ZONE_ID:=}" "${ARCH:=}" "${SKIP_BUILD:=}" "${CHECK_SETTINGS:=}"
: "${IMAGE_ARCH:=}" "${BASELINE_PARAMETERS:=}" "${PIPELINE_PARAMETERS:=}"

[[ -n $ENV ]] || fail "which environment? For example: make deploy ENV=test DOMAIN=test.example.com CERTIFICATE_ARN=arn:aws:acm:..."
# In addition to the grammar, ECR refuses two hyphens in a row, and a load balancer's name must not begin with internal-.
[[ $ENV =~ ^[a-z][a-z0-9-]{0,13}[a-z0-9]$ && $ENV != *--* && $ENV != internal && $ENV != internal-* ]] ||
  fail "ENV must be 2 to 15 lower-case letters, digits and single hyphens, begin with a letter, end with a letter or digit, and not be 'internal'; '$ENV' is invalid"
[[ -z $ARCH || $ARCH == x86_64 || $ARCH == arm64 ]] || fail "ARCH must be x86_64 or arm64, not '$ARCH'"
[[ -z $IMAGE_ARCH || $IMAGE_ARCH == x86_64 || $IMAGE_ARCH == arm64 ]] || fail "IMAGE_ARCH must be x86_64 or arm64, not '$IMAGE_ARCH'"
[[ -z $CERTIFICATE_ARN || -z $HOSTED_ZONE_ID ]] || fail "give CERTIFICATE_ARN or HOSTED_ZONE_ID, not both"
[[ -z $SETTINGS ]] || check_settings

baseline=$ENV-baseline
pipeline=$ENV-pipeline

account=$(aws sts get-caller-identity --query Account --output text) ||
  fail "the AWS CLI has no valid credentials (try: aws sts get-caller-identity)"
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
[[ -n $region ]] || fail "no region: set AWS_REGION, or a region in the AWS CLI's profile"
# A load balancer takes certificates of its own region only.
[[ -z $CERTIFICATE_ARN || $CERTIFICATE_ARN == arn:*:acm:"$region":*:certificate/?* ]] ||
  fail "CERTIFICATE_ARN must be the ARN of an ACM certificate of the region $region, not '$CERTIFICATE_ARN'"
# Version 1 of the AWS CLI reads AWS_DEFAULT_REGION; version 2 and the SDKs read AWS_REGION.
export AWS_REGION=$region AWS_DEFAULT_REGION=$region
bucket=pulse-deploy-$account-$region

settle_stack "$pipeline"
state_of_pipeline=$state
settle_stack "$baseline"
is_new=
[[ $state == ready ]] || is_new=yes
read -r -a baseline_parameters <<<"Environment=$ENV $BASELINE_PARAMETERS"
check_network
if [[ -n $is_new ]]; then
  [[ -n $CERTIFICATE_ARN || -n $HOSTED_ZONE_ID ]] ||
    fail "$ENV is new and HTTPS needs a certificate: give CERTIFICATE_ARN, or give HOSTED_ZONE_ID to create one for DOMAIN"
  [[ -n $DOMAIN || -z $HOSTED_ZONE_ID ]] || fail "HOSTED_ZONE_ID needs DOMAIN, the name for the certificate and the record"
  [[ -z $HOSTED_ZONE_ID ]] || check_hosted_zone
  baseline_parameters+=("DomainName=$DOMAIN" "CertificateArn=$CERTIFICATE_ARN" "HostedZoneId=$HOSTED_ZONE_ID")
else
  # An update would delete the listener, with the traffic.
  ! stack_has "$baseline" HttpsListener ||
    fail "the stack $baseline still has the listener in it, because a version before the first release made it; create another environment"
  protect_baseline
  zone=$(stack_parameter "$baseline" HostedZoneId)
  domain=$(stack_parameter "$baseline" DomainName)
  [[ -z $HOSTED_ZONE_ID || $HOSTED_ZONE_ID == "$zone" ]] ||
    fail "$ENV was created with ${zone:-no hosted zone}, which cannot change while it serves traffic; leave HOSTED_ZONE_ID out"
  [[ -z $zone || -z $DOMAIN || $DOMAIN == "$domain" ]] ||
    fail "$ENV was created for $domain, which cannot change while it serves traffic; leave DOMAIN out"
  [[ -n $zone || -z $DOMAIN ]] || baseline_parameters+=("DomainName=$DOMAIN")
  # One assignment each, because the shell exits only if the command of a plain assignment fails.
  if [[ -z $ARCH && $state_of_pipeline != new ]]; then
    ARCH=$(stack_parameter "$pipeline" Architecture)
  fi
  if [[ -z $IMAGE_ARCH && $state_of_pipeline != new ]]; then
    IMAGE_ARCH=$(stack_parameter "$pipeline" ImageArchitecture | tr '[:upper:]' '[:lower:]')
  fi
fi
: "${ARCH:=x86_64}"
: "${IMAGE_ARCH:=$ARCH}"

say "environment $ENV, account $account, region $region"
if [[ $SKIP_BUILD != 1 ]]; then
  say "building the functions for $ARCH"
  ARCH=$ARCH infra/build.sh
fi

if [[ -n $is_new ]]; then
  [[ $state != failed ]] || remove_failed_creation "$baseline"
  if repository_is_left; then
    create_baseline_around_repository "${baseline_parameters[@]}"
  fi
fi
deploy_stack "$baseline" infra/baseline.yaml --capabilities CAPABILITY_IAM --parameter-overrides "${baseline_parameters[@]}"
protect_baseline
ensure_listener
if [[ $(stack_parameter "$baseline" ListenerArn) != "$listener" ]]; then
  deploy_stack "$baseline" infra/baseline.yaml --capabilities CAPABILITY_IAM --parameter-overrides "ListenerArn=$listener"
fi
[[ -n $is_new || -z $CERTIFICATE_ARN ]] || change_certificate

ensure_package_bucket
say "$pipeline: uploading packages"
packaged=$(mktemp)
trap 'rm -f "$packaged"' EXIT
answer=$(aws cloudformation package --template-file infra/pipeline.yaml --s3-bucket "$bucket" --s3-prefix "$ENV" \
  --output-template-file "$packaged" 2>&1) || {
  echo "$answer" >&2
  exit 1
}

domain=$(stack_parameter "$baseline" DomainName)
image_architecture=$(tr '[:lower:]' '[:upper:]' <<<"$IMAGE_ARCH")
read -r -a pipeline_parameters <<<"Environment=$ENV ListenerArn=$listener DomainName=$domain Architecture=$ARCH ImageArchitecture=$image_architecture $PIPELINE_PARAMETERS"
deploy_stack "$pipeline" "$packaged" --s3-bucket "$bucket" --s3-prefix "$ENV" \
  --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --parameter-overrides "${pipeline_parameters[@]}"
[[ -z $SETTINGS ]] || put_settings

answer=$(aws cloudformation describe-stacks --stack-name "$baseline" --output text --query "Stacks[0].[
  Outputs[?OutputKey=='EcrRepositoryUri'].OutputValue | [0], Outputs[?OutputKey=='AlbDnsName'].OutputValue | [0],
  Parameters[?ParameterKey=='HostedZoneId'].ParameterValue | [0]]")
read -r repository address zone <<<"$answer"
say "$ENV is ready. To go live, push an image to $repository,"
echo "    tagged with a deployment id such as $ENV-$(date -u +%Y%m%d-%H%M%SZ)"
[[ -n $zone ]] || echo "    point ${DOMAIN:-your domain} at $address (alias or CNAME)"
