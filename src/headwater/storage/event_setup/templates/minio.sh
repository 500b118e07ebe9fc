#!/bin/sh
# MinIO sends the events of a bucket to Headwater. Needs mc; set ALIAS to the alias of the server. The address below is a
# secret. By environment instead: MINIO_NOTIFY_WEBHOOK_ENABLE_@{target}=on and MINIO_NOTIFY_WEBHOOK_ENDPOINT_@{target}=
# with that address, written just so; then only the last command is needed.
set -eu
ALIAS=${ALIAS:-myminio}

mc admin config set "$ALIAS" notify_webhook:@{target} endpoint=@{hook} queue_limit=100000
mc admin service restart "$ALIAS"
mc event add "$ALIAS/"@{bucket} arn:minio:sqs::@{target}:webhook --event put,delete @{mc_prefix}

printf 'Then:\n  headwater events status %s\n' @{driver}
