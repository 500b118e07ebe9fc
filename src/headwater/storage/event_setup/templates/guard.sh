# Setting a bucket's notifications replaces all it has.
existing=$(aws s3api get-bucket-notification-configuration --bucket "$BUCKET")
case "$existing" in
'' | '{}') ;;
*)
    printf 'Bucket %s has notifications already, which this would remove. Add to them by hand.\n' "$BUCKET" >&2
    exit 1
    ;;
esac
