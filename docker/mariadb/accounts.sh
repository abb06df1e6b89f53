#!/bin/sh
# accounts.sh start|change|end NAME FOLDER: the SQL that gives each account its password of FOLDER.
#
#   start   makes the accounts anew, with exactly these privileges: the server reads it at each start,
#           before it listens
#   change  lets the old password count beside it
#   end     no longer
set -eu
mode=$1
name=$2
folder=$3
schema=$(echo "$name" | sed 's/_/\\_/g') # in GRANT an underscore stands for any character

# Between single quotes, as sql_mode is empty. An account without a password would let everybody in.
password() {
    found=$(tr -d '\r\n' <"$folder/$1" | sed "s/^ *//; s/ *\$//; s/\\\\/&&/g; s/'/''/g")
    [ -n "$found" ] || {
        echo "the secret $1 is empty; run: make secrets" >&2
        exit 1
    }
    printf "'%s'" "$found"
}

# change ACCOUNT HOST PASSWORD
change() {
    [ "$mode" = change ] || {
        echo "ALTER USER '$1'@'$2' IDENTIFIED BY $3;"
        return
    }
    cat <<END
SET @old = (SELECT JSON_VALUE(priv, '\$.authentication_string') FROM mysql.global_priv
    WHERE user = '$1' AND host = '$2');
SET @new = PASSWORD($3);
EXECUTE IMMEDIATE IF(@new = @old, "DO 0", CONCAT("ALTER USER '$1'@'$2' IDENTIFIED VIA",
    " mysql_native_password USING '", @new, "' OR mysql_native_password USING '", @old, "'"));
END
}

serve=$(password database_password)
migrate=$(password database_migrate_password)
observe=$(password database_observe_password)
backup=$(password database_backup_password)
root=$(password database_root_password)

# Each server has accounts of its own: they are neither replicated nor replayed.
echo "SET NAMES utf8mb4;"
echo "SET sql_mode = '', sql_log_bin = 0;"
if [ "$mode" != start ]; then
    change "$name" % "$serve"
    change "${name}_migrate" % "$migrate"
    change observe % "$observe"
    change backup % "$backup"
    # Programs in the container have its old one until that starts again.
    [ "$mode" = end ] || change root localhost "$root"
    exit
fi
cat <<END
CREATE OR REPLACE USER '$name'@'%' IDENTIFIED BY $serve;
GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON \`$schema\`.* TO '$name'@'%';
CREATE OR REPLACE USER '${name}_migrate'@'%' IDENTIFIED BY $migrate;
GRANT ALL ON \`$schema\`.* TO '${name}_migrate'@'%';
GRANT ALL ON \`$schema\\_restored\`.* TO '${name}_migrate'@'%';
CREATE OR REPLACE USER 'observe'@'%' IDENTIFIED BY $observe WITH MAX_USER_CONNECTIONS 5;
GRANT PROCESS, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'observe'@'%';
GRANT SELECT ON performance_schema.* TO 'observe'@'%';
CREATE OR REPLACE USER 'backup'@'%' IDENTIFIED BY $backup;
GRANT RELOAD, PROCESS, BINLOG MONITOR, REPLICATION SLAVE ON *.* TO 'backup'@'%';
GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON \`$schema\`.* TO 'backup'@'%';
GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON \`$schema\\_%\`.* TO 'backup'@'%';
GRANT SELECT ON mysql.proc TO 'backup'@'%';
END
# At the first start it is the image that gives root a password, and needs none until then.
[ ! -d /var/lib/mysql/mysql ] || echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $root;"
