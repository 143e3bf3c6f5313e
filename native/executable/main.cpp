// pocketglm-engine: runs a package for another program, over lines of JSON; see docs/engine-protocol.md.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>

#include "server.h"

namespace {

constexpr const char* USAGE =
    "usage: pocketglm-engine [--version | --help]\n"
    "Reads requests from standard input and writes events to standard output, one JSON object a line.\n";

}  // namespace

int main(int count, char** arguments) {
    if (count > 1) {
        const bool version = std::strcmp(arguments[1], "--version") == 0;
        const bool help = std::strcmp(arguments[1], "--help") == 0;
        if (version)
            std::printf("pocketglm-engine %s, protocol %d\n", POCKETGLM_VERSION,
                        pocketglm::executable::PROTOCOL);
        if (!version) std::fputs(USAGE, help ? stdout : stderr);
        return version || help ? 0 : 2;
    }
    std::signal(SIGPIPE, SIG_IGN);  // a closed output is noticed where it is written to
    try {
        pocketglm::executable::Server(0, 1).run();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "pocketglm-engine: %s\n", error.what());
        return 1;
    }
    return 0;
}
