// A plain mutating driver for compilers without libFuzzer, with libFuzzer's options as far as they are used:
//
//     target [-max_total_time=SECONDS] [-seed=N] CORPUS_FOLDER...
//
// Mutates the files of the corpus, and what it made of them, without looking at coverage.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;
using Generator = std::mt19937_64;

constexpr std::size_t MOST_BYTES = 1 << 20, MOST_KEPT = 500;
// Pieces of JSON and numbers at the edges.
const std::vector<std::string> WORDS{"null",
                                     "true",
                                     "false",
                                     "0",
                                     "-1",
                                     "1e999",
                                     "9223372036854775807",
                                     "9223372036854775808",
                                     "281474976710655",
                                     "4294967296",
                                     "2147483647",
                                     "16777216",
                                     "16777217",
                                     "0.5",
                                     "\"\"",
                                     "\"\\ud800\"",
                                     "[]",
                                     "{}",
                                     "[",
                                     "{",
                                     ",",
                                     ":",
                                     "\n",
                                     "\"command\":",
                                     "\"load\"",
                                     "\"generate\"",
                                     "\"tokens\"",
                                     "\xff",
                                     "\xf0\x9f\x98\x80"};

std::size_t below(Generator& random, std::size_t bound) { return bound == 0 ? 0 : random() % bound; }

void mutate(Bytes& bytes, const Bytes& other, Generator& random) {
    const std::size_t place = below(random, bytes.size() + 1);
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(place);
    const std::size_t rest = bytes.size() - place;
    const auto short_end =
        at + static_cast<std::ptrdiff_t>(below(random, std::min<std::size_t>(rest, 32) + 1));
    switch (random() % 6) {
        case 0:
            if (rest > 0) *at ^= static_cast<std::uint8_t>(1u << random() % 8);
            break;
        case 1:
            bytes.erase(at, short_end);
            break;
        case 2: {
            const std::string& word = WORDS[below(random, WORDS.size())];
            bytes.insert(bytes.erase(at, random() % 2 ? short_end : at), word.begin(), word.end());
            break;
        }
        case 3: {
            const Bytes piece(at, short_end);
            bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(random, bytes.size() + 1)),
                         piece.begin(), piece.end());
            break;
        }
        case 4: {  // the other's end behind one's own start
            const std::size_t from = below(random, other.size() + 1);
            bytes.erase(at, bytes.end());
            bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
            break;
        }
        default:
            if (rest > 0 && *at >= '0' && *at <= '9') *at = static_cast<std::uint8_t>('0' + random() % 10);
    }
    if (bytes.size() > MOST_BYTES) bytes.resize(MOST_BYTES);
}

std::vector<Bytes> read_corpus(const std::string& folder) {
    std::vector<Bytes> corpus;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        std::ifstream file(entry.path(), std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return corpus;
}

}  // namespace

int main(int count, char** arguments) {
    double seconds = 5;
    Generator random(1);
    std::vector<Bytes> corpus;
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        if (argument.rfind("-max_total_time=", 0) == 0) {
            seconds = std::stod(argument.substr(16));
        } else if (argument.rfind("-seed=", 0) == 0) {
            random.seed(std::stoull(argument.substr(6)));
        } else if (argument[0] != '-') {
            for (Bytes& bytes : read_corpus(argument)) corpus.push_back(std::move(bytes));
        }
    }
    if (corpus.empty()) corpus.emplace_back();
    const std::size_t seeds = corpus.size();
    for (const Bytes& bytes : corpus) LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    std::size_t runs = seeds;
    for (; std::chrono::steady_clock::now() < end; ++runs) {
        Bytes bytes = corpus[below(random, corpus.size())];
        for (std::uint64_t left = 1 + random() % 4; left > 0; --left)
            mutate(bytes, corpus[below(random, corpus.size())], random);
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
        if (random() % 64 != 0) continue;
        if (corpus.size() < MOST_KEPT) {
            corpus.push_back(std::move(bytes));
        } else {
            corpus[seeds + below(random, MOST_KEPT - seeds)] = std::move(bytes);
        }
    }
    std::fprintf(stderr, "Done %zu runs\n", runs);
    return 0;
}
