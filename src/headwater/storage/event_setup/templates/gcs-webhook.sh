#!/bin/sh
# The events of a bucket go to a topic of Pub/Sub, which pushes them to Headwater with a signed token. Needs the Google
# Cloud CLI, as somebody who may make these. The address below is a secret.
set -eu
NAME=@{name}
BUCKET=@{bucket}
PROJECT=$(gcloud config get-value project)
PUSHER="$NAME@@$PROJECT.iam.gserviceaccount.com"

gcloud pubsub topics create "$NAME" --project="$PROJECT"
# Cloud Storage may publish to this topic.
AGENT=$(gcloud storage service-agent --project="$PROJECT")
gcloud pubsub topics add-iam-policy-binding "$NAME" --project="$PROJECT" \
    --member="serviceAccount:$AGENT" --role=roles/pubsub.publisher
gcloud storage buckets notifications create "gs://$BUCKET" --topic="projects/$PROJECT/topics/$NAME" \
    --event-types=OBJECT_FINALIZE,OBJECT_DELETE,OBJECT_ARCHIVE @{prefix_flag}--payload-format=json --skip-topic-setup

# An account without any right; its tokens only say who pushes.
gcloud iam service-accounts create "$NAME" --project="$PROJECT" --display-name='Pushes bucket events to Headwater'
gcloud pubsub subscriptions create "$NAME" --project="$PROJECT" --topic="$NAME" --push-endpoint=@{hook} \
    --push-auth-service-account="$PUSHER" --push-auth-token-audience=@{audience} --ack-deadline=60 \
    --min-retry-delay=10s --max-retry-delay=600s --expiration-period=never

printf 'Then, so that only tokens of this account count:\n  headwater events on %s --push-account %s\n' @{driver} "$PUSHER"
