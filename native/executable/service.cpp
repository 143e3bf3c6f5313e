#include "service.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <new>

#include "random.h"

namespace pocketglm::executable {

namespace {

constexpr const char* KV_NAMES[] = {"float32", "float16", "int8"};

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double rate(std::int64_t count, double seconds) {
    return count > 0 && seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

// Anonymous memory of the process in bytes, -1 where the system does not say.
std::int64_t anonymous_bytes() {
    std::FILE* file = std::fopen("/proc/self/status", "re");
    if (file == nullptr) return -1;
    char line[256];
    long long kilobytes = -1;
    while (std::fgets(line, sizeof line, file) != nullptr)
        if (std::sscanf(line, "RssAnon: %lld kB", &kilobytes) == 1) break;
    std::fclose(file);
    return kilobytes < 0 ? -1 : static_cast<std::int64_t>(kilobytes) * 1024;
}

struct FreeSampler {
    void operator()(pglm_sampler* sampler) const { pglm_sampler_free(sampler); }
};
using SamplerPointer = std::unique_ptr<pglm_sampler, FreeSampler>;

void check(pglm_status status, const char* code) {
    if (status == PGLM_OK) return;
    if (status == PGLM_MEMORY) code = "memory";
    throw Refusal(code, pglm_last_error());
}

SamplerPointer make_sampler(const GenerateOptions& options, std::int32_t vocab_size) {
    const auto size = [](const auto& list) { return static_cast<std::int64_t>(list.size()); };
    pglm_sampler* made = nullptr;
    check(pglm_sampler_new(&options.sampling, vocab_size, &made), "request");
    SamplerPointer sampler(made);
    check(pglm_sampler_see(made, options.tokens.data(), size(options.tokens)), "request");
    const std::vector<std::int32_t>& ends = options.end_tokens;
    if (options.ignore_end) check(pglm_sampler_ban(made, ends.data(), size(ends)), "request");
    check(
        pglm_sampler_bias(made, options.bias_tokens.data(), options.biases.data(), size(options.bias_tokens)),
        "request");
    return sampler;
}

std::int32_t next_token(pglm_sampler* sampler, const float* logits, double uniform) {
    std::int32_t token = 0;
    check(pglm_sampler_next(sampler, logits, uniform, &token), "engine");
    return token;
}

}  // namespace

// What is known of an answer while it is made.
struct Service::Answer {
    const char* reason = nullptr;  // of its end
    int prompt = 0, reused = 0, generated = 0;
    double prefill_s = 0, decode_s = 0;
};

void Service::greet() {
    std::string names = "[";
    for (const char* const* name = pglm_isa_names(); *name != nullptr; ++name)
        names += (names.size() == 1 ? "" : ",") + json_string(*name);
    say(Event("ready", "")
            .integer("protocol", PROTOCOL)
            .text("engine", POCKETGLM_VERSION)
            .raw("isa", names + "]"));
}

void Service::execute(Job& job) noexcept {
    const std::string& id = job.request.id;
    try {
        try {
            perform(job);
        } catch (const Refusal& refusal) {
            say(Event::error(refusal, id));
        } catch (const std::bad_alloc&) {
            say(Event::error(Refusal("memory", "out of memory", "send less at a time, or free memory"), id));
        } catch (const std::exception& error) {
            say(Event::error(Refusal("internal", error.what()), id));
        }
    } catch (...) {  // no memory even for the error
        output_("{\"event\":\"error\",\"code\":\"memory\",\"message\":\"out of memory\"}\n");
    }
}

void Service::perform(Job& job) {
    switch (job.request.command) {
        case Command::Load:
            return load(job.request);
        case Command::Generate:
            return generate(job);
        case Command::Stats:
            return stats(job.request.id);
        case Command::Unload:
            model_.reset();
            return say(Event("unloaded", job.request.id));
        case Command::Stop:
        case Command::Quit:
            return;  // the server's own
    }
}

Model& Service::loaded() {
    if (!model_) throw Refusal("not_loaded", "no model is loaded", "send a load request first");
    return *model_;
}

void Service::load(const Request& request) {
    const double began = now();
    model_.reset();  // first: two models need not fit
    prefill_rate_ = decode_rate_ = 0;
    model_ = std::make_unique<Model>(request.load);
    const pglm_usage usage = model_->usage();
    say(Event("loaded", request.id)
            .integer("vocab_size", model_->spec().vocab_size)
            .integer("blocks", model_->spec().num_blocks)
            .integer("context", model_->context())
            .text("kv", KV_NAMES[request.load.kv_type])
            .text("isa", usage.isa)
            .integer("threads", usage.threads)
            .integer("weight_bytes", static_cast<std::int64_t>(usage.weight_bytes))
            .integer("streamed_bytes", static_cast<std::int64_t>(usage.streamed_bytes))
            .number("seconds", now() - began));
}

void Service::generate(Job& job) {
    const GenerateOptions& options = job.request.generate;
    Model& model = loaded();
    const SamplerPointer sampler = make_sampler(options, model.spec().vocab_size);
    const int room =
        model.context() - static_cast<int>(std::min<std::size_t>(options.tokens.size(), INT32_MAX));
    if (room < 1) {
        throw Refusal("context",
                      "the prompt has " + std::to_string(options.tokens.size()) +
                          " tokens, the context holds " + std::to_string(model.context()) +
                          ", one of them for the answer",
                      "shorten the prompt, or load with a larger context");
    }
    const std::int64_t limit =
        options.max_tokens < 0 ? room : std::min<std::int64_t>(room, options.max_tokens);
    Random random(options.has_seed ? options.seed : fresh_seed());
    Answer answer;
    answer.prompt = static_cast<int>(options.tokens.size());

    const double began = now();
    const float* logits = nullptr;
    if (!job.stopped) {
        answer.reused = model.reuse(options.tokens);
        logits =
            model.forward(options.tokens.data() + answer.reused, answer.prompt - answer.reused, job.stopped);
    }
    answer.prefill_s = now() - began;
    while (logits != nullptr && !job.stopped && answer.generated < limit) {
        const double uniform = options.sampling.temperature > 0 ? random.uniform() : 0;
        const std::int32_t token = next_token(sampler.get(), logits, uniform);
        if (std::find(options.end_tokens.begin(), options.end_tokens.end(), token) !=
            options.end_tokens.end()) {
            answer.reason = "stop";
            break;
        }
        say(Event("token", job.request.id).integer("token", token));
        if (++answer.generated == limit) break;  // its logits are not wanted
        const double step = now();
        logits = model.forward(&token, 1, job.stopped);
        answer.decode_s += now() - step;
    }
    if (answer.reason == nullptr) answer.reason = answer.generated < limit ? "interrupted" : "length";
    report(job.request.id, answer);
}

void Service::report(const std::string& id, const Answer& answer) {
    prefill_rate_ = rate(answer.prompt - answer.reused, answer.prefill_s);
    decode_rate_ = rate(answer.generated - 1, answer.decode_s);
    say(Event("done", id)
            .text("reason", answer.reason)
            .integer("prompt_tokens", answer.prompt)
            .integer("reused_tokens", answer.reused)
            .integer("generated_tokens", answer.generated)
            .number("prefill_s", answer.prefill_s)
            .number("decode_s", answer.decode_s)
            .number("prefill_tps", prefill_rate_)
            .number("decode_tps", decode_rate_));
}

void Service::stats(const std::string& id) {
    Event event("stats", id);
    event.boolean("loaded", model_ != nullptr).integer("anonymous_bytes", anonymous_bytes());
    if (model_) {
        const pglm_usage usage = model_->usage();
        event.text("isa", usage.isa)
            .integer("threads", usage.threads)
            .integer("weight_bytes", static_cast<std::int64_t>(usage.weight_bytes))
            .integer("cache_bytes", static_cast<std::int64_t>(usage.cache_bytes))
            .integer("buffer_bytes", static_cast<std::int64_t>(usage.buffer_bytes))
            .integer("context", model_->context())
            .integer("cached_tokens", model_->length())
            .number("prefill_tps", prefill_rate_)
            .number("decode_tps", decode_rate_);
    }
    say(event);
}

}  // namespace pocketglm::executable
