# The name, the number of rows and the checksum of each table in a dump: mariadb-dump writes each row
# on a line of its own, in the order of the primary key.
function finish() {
    if (table == "") return
    printf "%s %d ", table, rows
    if (rows) {
        fflush()
        close("sha256sum")
    } else print "empty"
    table = ""
}
/^CREATE TABLE `/ {
    finish()
    table = $0
    sub(/^CREATE TABLE /, "", table)
    sub(/ \($/, "", table)
    rows = 0
    data = 0
    next
}
/^INSERT INTO `/ { data = 1; next }
data && /^\(/ {
    rows++
    data = /,$/
    sub(/[,;]$/, "") # where one statement ends and the next begins is no part of the data
    print | "sha256sum"
    next
}
/^UNLOCK TABLES;$/ { finish() }
END { finish() }
