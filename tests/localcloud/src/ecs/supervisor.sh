# Runs the process of a task under the control of the local cloud. Standard input is a pipe from the
# local cloud. Each line names a signal for the process. When the pipe is closed, also because the local
# cloud was killed, the whole process group is killed. The exit status is that of the process, or
# 128 + n after signal n.
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
