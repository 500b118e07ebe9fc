#!/bin/sh
# The events of a container go to Headwater by Event Grid. Needs the Azure CLI, as somebody who may make these. Switch the
# driver's events on first: Event Grid asks the address at once whether it wants them. The address below is a secret.
set -eu
ACCOUNT_ID=$(az storage account show --name @{account} --query id --output tsv)

az eventgrid event-subscription create --name @{name} --source-resource-id "$ACCOUNT_ID" \
    --endpoint-type webhook --endpoint @{hook} --event-delivery-schema eventgridschema \
    --included-event-types @{event_types} \
    --subject-begins-with @{subject} --subject-case-sensitive true --max-delivery-attempts 30 --event-ttl 1440

printf 'Then:\n  headwater events status %s\n' @{driver}
