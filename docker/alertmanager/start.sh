#!/bin/sh
# start.sh [check | reload]: starts Alertmanager with the receivers that are set. A receiver without an
# address is none: its alerts are only shown on Alertmanager's own page, and the log says so.
set -eu
folder=$(dirname "$0")
secrets=${SECRETS_FOLDER:-/run/secrets}
made=/tmp/alertmanager

# receiver WEBHOOK ADDRESS RESOLVED: its part of the configuration.
receiver() {
    if [ -s "$secrets/$1" ]; then
        echo "    webhook_configs:"
        echo "      - {url_file: $secrets/$1, send_resolved: $3}"
    fi
    [ -n "$2" ] || return 0
    cat <<END
    email_configs:
      - to: '$2'
        from: '$ALERT_MAIL_SENDER'
        smarthost: '$ALERT_SMTP'
        require_tls: $ALERT_SMTP_TLS
        send_resolved: true
END
    [ -z "$ALERT_SMTP_USER" ] ||
        printf "        auth_username: '%s'\n        auth_password_file: %s\n" "$ALERT_SMTP_USER" "$secrets/alert_smtp_password"
}

make() {
    if [ -n "$ALERT_PAGES_MAIL$ALERT_TICKETS_MAIL" ] && [ -z "$ALERT_SMTP" ]; then
        echo "ALERT_SMTP is missing in .env: the mail server, such as smtp.example.com:587" >&2
        return 1
    fi
    mkdir -p "$made"
    receiver alert_pages_url "$ALERT_PAGES_MAIL" true >"$made/pages"
    receiver alert_tickets_url "$ALERT_TICKETS_MAIL" true >"$made/tickets"
    receiver alert_watchdog_url "" false >"$made/watchdog"
    for receiver in pages tickets watchdog; do
        set -- "$@" -e "/^  - name: $receiver\$/r $made/$receiver"
    done
    sed "$@" "$folder/alertmanager.yml" >"$made/new.yml"
    amtool check-config "$made/new.yml" >"$made/output" 2>&1 || {
        cat "$made/output" >&2
        return 1
    }
}

tell() {
    for receiver in pages tickets watchdog; do
        [ -s "$made/$receiver" ] || case $receiver in
        watchdog) echo "watchdog: no receiver, so nobody notices if alerts are no longer delivered" ;;
        *) echo "$receiver: no receiver of .env or secrets/, so they are shown only on Alertmanager's page" ;;
        esac
    done
}

make
case ${1:-} in
check) exit ;;
reload)
    mv "$made/new.yml" "$made/alertmanager.yml"
    tell
    # Unlike a signal this ends when it is done, and says whether it is.
    exec wget -q -O /dev/null --post-data= http://127.0.0.1:9093/-/reload
    ;;
esac
mv "$made/new.yml" "$made/alertmanager.yml"
tell
exec alertmanager --config.file="$made/alertmanager.yml" --storage.path=/alertmanager --cluster.listen-address= "$@"
