"""The system calls that Android 8 and newer let an app make, as far as the engine could want them.

Android's filter kills the process at any other call. From bionic's SYSCALLS.TXT and the seccomp lists beside
it, arm64. What is not listed here is taken for forbidden, so that a new call is looked up.
"""

NAMES = (
    "brk clock_getres clock_gettime clock_nanosleep clone close dup dup3 execve exit exit_group",
    "faccessat fadvise64 fcntl fdatasync fstat fstatfs fsync ftruncate futex",
    "getcpu getcwd getdents64 getpid getppid getpriority getrandom getrlimit getrusage gettid gettimeofday",
    "kill lseek madvise mincore mlock mmap mprotect mremap munlock munmap nanosleep newfstatat openat",
    "pipe2 ppoll prctl pread64 preadv prlimit64 pwrite64 read readahead readlinkat readv restart_syscall",
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait",
    "sched_getaffinity sched_getscheduler sched_setaffinity sched_yield set_tid_address setpriority",
    "sigaltstack statfs sysinfo tgkill tkill umask uname wait4 waitid write writev",
)
ALLOWED = frozenset(name for line in NAMES for name in line.split())
