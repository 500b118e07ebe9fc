#!/bin/sh
# Ceph sends the events of a bucket to Headwater. Needs the AWS CLI with the keys of the bucket's owner. The address below
# is a secret. A topic that is persistent keeps events while Headwater is away.
set -eu
export AWS_REGION=@{region} AWS_DEFAULT_REGION=@{region} AWS_ENDPOINT_URL=@{endpoint}
NAME=@{name}
BUCKET=@{bucket}

@{guard}
TOPIC_ARN=$(aws sns create-topic --name "$NAME" --attributes @{topic_attributes} --query TopicArn --output text)
aws s3api put-bucket-notification-configuration --bucket "$BUCKET" --notification-configuration @{notification}

printf 'Then:\n  headwater events status %s\n' @{driver}
