# CMake's settings for Zig's C++ compiler: static programs for arm64 with musl, whose system calls are all
# among those that Android lets an app make (glibc's are not). ZIG is the path of Zig's program.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER ${ZIG} c++)
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-musl)
set(CMAKE_CXX_ARCHIVE_CREATE "${ZIG} ar qc <TARGET> <LINK_FLAGS> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${ZIG} ranlib <TARGET>")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ZIG)
# CMake's questions need no program: the first would compile a C++ library of another kind, for two minutes.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

# At another address in each process, as Android wants of programs.
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(POCKETGLM_STATIC -static -pie)

# Zig's names for what others call -march=armv8-a and -march=armv8.2-a.
set(POCKETGLM_ARMV8 -mcpu=generic)
set(POCKETGLM_ARMV8_2 -mcpu=generic+v8_2a)
