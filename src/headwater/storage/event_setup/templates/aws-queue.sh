#!/bin/sh
# The events of a bucket go into a queue of SQS, which Headwater reads. Needs the AWS CLI, as somebody who may make these.
set -eu
export AWS_REGION=@{region} AWS_DEFAULT_REGION=@{region}
NAME=@{name}
BUCKET=@{bucket}
ACCOUNT=$(aws sts get-caller-identity --query Account --output text)

@{guard}
# What cannot be read five times is put aside.
DEAD_URL=$(aws sqs create-queue --queue-name "$NAME-dead" --attributes @{dead_attributes} --query QueueUrl --output text)
DEAD_ARN=$(aws sqs get-queue-attributes --queue-url "$DEAD_URL" --attribute-names QueueArn \
    --query Attributes.QueueArn --output text)
QUEUE_URL=$(aws sqs create-queue --queue-name "$NAME" --attributes @{queue_attributes} --query QueueUrl --output text)
QUEUE_ARN=$(aws sqs get-queue-attributes --queue-url "$QUEUE_URL" --attribute-names QueueArn \
    --query Attributes.QueueArn --output text)

# Only this bucket may put messages into it.
aws sqs set-queue-attributes --queue-url "$QUEUE_URL" --attributes @{queue_policy}
aws s3api put-bucket-notification-configuration --bucket "$BUCKET" --notification-configuration @{notification}

# What Headwater has to be allowed.
POLICY_ARN=$(aws iam create-policy --policy-name "$NAME" --policy-document @{reader_policy} --query Policy.Arn --output text)

printf 'Attach the policy to the user or role of the integration of the driver:\n'
printf '  aws iam attach-user-policy --user-name USER --policy-arn %s\n' "$POLICY_ARN"
printf 'Then:\n  headwater events queue %s %s\n  headwater events on %s\n' @{driver} "$QUEUE_URL" @{driver}
