#!/bin/sh
# The events of a bucket go to EventBridge, which sends them to Headwater. Needs the AWS CLI, as somebody who may make
# these. The address below is a secret: who knows it can make Headwater look at objects.
set -eu
export AWS_REGION=@{region} AWS_DEFAULT_REGION=@{region}
NAME=@{name}
BUCKET=@{bucket}

@{guard}
aws s3api put-bucket-notification-configuration --bucket "$BUCKET" --notification-configuration @{notification}
RULE_ARN=$(aws events put-rule --name "$NAME" --event-pattern @{pattern} --query RuleArn --output text)

# A connection has to name a key. The address is the secret, so this one says nothing.
CONNECTION_ARN=$(aws events create-connection --name "$NAME" --authorization-type API_KEY \
    --auth-parameters @{authorization} --query ConnectionArn --output text)
DESTINATION_ARN=$(aws events create-api-destination --name "$NAME" --connection-arn "$CONNECTION_ARN" \
    --invocation-endpoint @{hook} --http-method POST --query ApiDestinationArn --output text)

# EventBridge may send to this destination, for this rule, and nothing else.
ROLE_ARN=$(aws iam create-role --role-name "$NAME" --assume-role-policy-document @{trust} --query Role.Arn --output text)
aws iam put-role-policy --role-name "$NAME" --policy-name send --policy-document @{role_policy}
aws events put-targets --rule "$NAME" --targets @{targets}

printf 'Then:\n  headwater events status %s\n' @{driver}
