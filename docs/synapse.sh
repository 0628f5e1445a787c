#!/bin/sh
# synapse.sh PYTHON PORT DATA REGISTRATIONS SERVER_NAME
# runs the Synapse of that Python in the foreground, on SQLite and loopback, with the settings that the suite wants
set -eu
python=$1 port=$2 name=$5
registrations=$(cd "$4" && pwd)
mkdir -p "$3"
cd "$3"
if [ ! -e homeserver.yaml ]; then      # a restart finds its data again
    "$python" -m synapse.app.homeserver --generate-config -c homeserver.yaml \
        --server-name "$name" --report-stats no
fi
cat > conformance.yaml <<END
listeners:
  - {port: $port, bind_addresses: [127.0.0.1], type: http, resources: [{names: [client]}]}
app_service_config_files: [$(printf '"%s", ' "$registrations"/*.yaml)]
enable_registration: true
enable_registration_without_verification: true
presence: {enabled: true}
room_list_publication_rules: [{action: allow}]
federation_domain_whitelist: []
trusted_key_servers: []
bcrypt_rounds: 4
rc_message: {per_second: 6, burst_count: 100}
rc_registration: &out_of_the_way {per_second: 10000, burst_count: 10000}
rc_login: {address: *out_of_the_way, account: *out_of_the_way, failed_attempts: *out_of_the_way}
rc_joins: {local: *out_of_the_way, remote: *out_of_the_way}
rc_joins_per_room: *out_of_the_way
rc_invites: {per_room: *out_of_the_way, per_user: *out_of_the_way, per_issuer: *out_of_the_way}
rc_room_creation: *out_of_the_way
rc_presence: {per_user: *out_of_the_way}
rc_admin_redaction: *out_of_the_way
END
exec "$python" -m synapse.app.homeserver -c homeserver.yaml -c conformance.yaml
