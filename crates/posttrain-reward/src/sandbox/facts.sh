# Says from inside of a sandbox what holds there; isolation is read from it in sandbox/probe.rs.
echo "net $(readlink /proc/self/ns/net 2> /dev/null || :)"
echo "pid $(readlink /proc/self/ns/pid 2> /dev/null || :)"
echo "memory $(ulimit -v)"
# With one process allowed, a shell that forks fails, unless the kernel does not count.
if command -v prlimit > /dev/null && ! prlimit --nproc=1:1 -- sh -c '(:) && :' 2> /dev/null; then
    echo "nproc held"
fi
# How many filters system calls go through.
while read -r name value; do
    [ "$name" != "Seccomp_filters:" ] || echo "filters $value"
done < /proc/self/status 2> /dev/null || :
while read -r _ _ _ _ point options _; do
    echo "mount $point $options"
done < /proc/self/mountinfo 2> /dev/null
exit 0
