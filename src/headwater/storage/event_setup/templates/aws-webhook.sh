#!/bin/sh
# The events of a bucket go to a topic of SNS, which sends them to Headwater. Needs the AWS CLI, as somebody who may make
# these. The address below is a secret: who knows it can make Headwater look at objects.
set -eu
export AWS_REGION=@{region} AWS_DEFAULT_REGION=@{region}
NAME=@{name}
BUCKET=@{bucket}
ACCOUNT=$(aws sts get-caller-identity --query Account --output text)

@{guard}
TOPIC_ARN=$(aws sns create-topic --name "$NAME" --query TopicArn --output text)

# Only this bucket may publish to it.
aws sns set-topic-attributes --topic-arn "$TOPIC_ARN" --attribute-name Policy --attribute-value @{topic_policy}
# Headwater confirms the subscription by itself.
aws sns subscribe --topic-arn "$TOPIC_ARN" --protocol @{protocol} --notification-endpoint @{hook}
aws s3api put-bucket-notification-configuration --bucket "$BUCKET" --notification-configuration @{notification}

printf 'Then:\n  headwater events status %s\n' @{driver}
