#!/bin/sh
# The events of a container go into a Storage Queue of its account, which Headwater reads. Needs the Azure CLI, as somebody
# who may make these.
set -eu
ACCOUNT_ID=$(az storage account show --name @{account} --query id --output tsv)
QUEUE_ID="$ACCOUNT_ID/queueServices/default/queues/"@{name}

az storage queue create --name @{name} --account-name @{account} --auth-mode login
az eventgrid event-subscription create --name @{name} --source-resource-id "$ACCOUNT_ID" \
    --endpoint-type storagequeue --endpoint "$QUEUE_ID" --event-delivery-schema eventgridschema \
    --included-event-types @{event_types} \
    --subject-begins-with @{subject} --subject-case-sensitive true --max-delivery-attempts 30 --event-ttl 1440

printf 'Let the service principal of the integration read it (an account key may do everything):\n'
printf '  az role assignment create --assignee CLIENT-ID --role "Storage Queue Data Message Processor" --scope %s\n' "$QUEUE_ID"
printf 'Then:\n  headwater events queue %s %s\n  headwater events on %s\n' @{driver} @{name} @{driver}
