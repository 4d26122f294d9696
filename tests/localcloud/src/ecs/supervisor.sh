# Starts a task's process and stands between it and the local cloud. Standard input is a pipe from
# the local cloud: each line names a signal for the process, and its end (also when the local cloud
# is killed) ends the whole process group. The exit status is the process's, 128 + n after signal n.
exec 3<&0
unset PWD OLDPWD SHLVL
"$@" </dev/null 3<&- &
child=$!
{
    while read -r signal; do kill -s "$signal" "$child"; done
    kill -s KILL 0
} <&3 >/dev/null 2>&1 &
exec 3<&-
wait "$child"
