// Counts what a search allocates between its first number and its last: nothing, since all that it touches lies in an
// arena. Reads programs from standard input (as adgan_fast/engines/native.py encodes them: a name, the number of whole
// numbers and these, the number of real ones and these) and searches each in every mode, with every loss and every
// instruction set. Prints a line for each that allocates, then how many searches there were.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "core/search.h"

namespace {

std::atomic<long> allocations{0};

}  // namespace

// Whoever asks, the C++ library included, asks here.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  ++allocations;
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) {
  ++allocations;
  *result = __libc_memalign(alignment, size);
  return *result ? 0 : 12;
}
}

namespace {

constexpr std::int64_t kImages = 2, kStarts = 3;

void own_loss(const float* y, const float* target, float* g, float* value, int* done) {
  *value = std::fabs(y[0] - target[0]);
  if (g) g[0] = y[0] > target[0] ? 1.0f : -1.0f;
  *done = 1;
}

template <typename T>
std::vector<T> read_list() {
  std::size_t n;
  if (!(std::cin >> n)) std::exit(2);
  std::vector<T> list(n);
  for (T& x : list) std::cin >> x;
  return list;
}

// Numbers of no meaning, between -0.5 and 0.5 or, where a variance is wanted, above zero.
std::vector<float> some(std::int64_t n, float from) {
  std::vector<float> list(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < list.size(); ++i) list[i] = from + static_cast<float>(i * 7919 % 1009) / 1009.0f;
  return list;
}

struct Setting {
  adgan::Weights weights;
  adgan::Loss loss;
  std::int64_t steps;
  adgan::Isa isa;
  bool compact;
};

long allocations_of_search(const adgan::Program& program, const Setting& at) {
  std::vector<std::vector<float>> tensors[2];
  std::vector<const float*> pointers[2];
  for (const adgan::Value& v : program.values) {
    if (v.kind != adgan::Kind::parameter && v.kind != adgan::Kind::constant) continue;
    const bool constant = v.kind == adgan::Kind::constant;
    tensors[constant].resize(std::max(tensors[constant].size(), static_cast<std::size_t>(v.index) + 1));
    tensors[constant][static_cast<std::size_t>(v.index)] = some(v.size(), constant ? 0.25f : -0.5f);
  }
  for (int k : {0, 1}) {
    for (const auto& t : tensors[k]) pointers[k].push_back(t.data());
  }
  const adgan::Plan plan(program, at.weights, at.steps, at.compact);
  std::vector<float> theta(static_cast<std::size_t>(plan.theta_size)), fixed(static_cast<std::size_t>(plan.fixed_size));
  plan.load(pointers[0], pointers[1], theta.data(), fixed.data());
  const std::int64_t pixels = plan.output_size, latent = plan.latent_size;
  const std::vector<float> images = some(kImages * pixels, -0.5f), starts = some(kStarts * latent, -0.5f);
  std::vector<float> initial(kImages * kStarts), final = initial;
  std::vector<float> latents(static_cast<std::size_t>(kImages * kStarts * latent));
  std::vector<float> reconstructions(static_cast<std::size_t>(kImages * kStarts * pixels));
  const adgan::Pairs pairs{kImages,        kStarts,        images.data(), starts.data(), true, initial.data(), final.data(),
                           latents.data(), reconstructions.data()};
  const adgan::Rule rule{at.weights, at.loss, at.steps, 0.25, 5e-5, 0.5, 0.999, 1e-8,
                         at.loss == adgan::Loss::own ? own_loss : nullptr, nullptr};
  const adgan::Search search(plan, rule, theta.data(), fixed.data(), adgan::kernels(at.isa));
  adgan::Arena arena(search.arena_floats(at.weights == adgan::Weights::per_sample ? kStarts
                                         : at.weights == adgan::Weights::frozen   ? plan.batch
                                                                                  : 1));
  const long before = allocations;
  switch (at.weights) {
    case adgan::Weights::per_seed: search.per_seed(arena, pairs, 1, 0, kImages); break;
    case adgan::Weights::per_sample: search.per_sample(arena, pairs, 1, adgan::Team()); break;
    case adgan::Weights::frozen: search.frozen(arena, pairs, 0, kImages * kStarts); break;
  }
  return allocations - before;
}

}  // namespace

int main() {
  const long before = allocations;
  delete new int(1);  // NOLINT: the counter's own test
  std::free(std::malloc(1));
  if (allocations - before < 1) {
    std::puts("the counter does not count");
    return 2;
  }
  long searches = 0;
  int wrong = 0;
  for (std::string name; std::getline(std::cin >> std::ws, name);) {
    const auto code = read_list<std::int64_t>();
    const auto numbers = read_list<double>();
    const adgan::Program program(code, numbers);
    for (int weights = 0; weights < 3; ++weights) {
      for (int loss = 0; loss < static_cast<int>(adgan::Loss::count); ++loss) {
        for (const std::int64_t steps : {0, 3, 9}) {
          for (int isa = 0; isa <= static_cast<int>(adgan::best_isa()); ++isa) {
            for (const bool compact : {false, true}) {
              if (compact && loss > 0) continue;  // the loss knows nothing of the state
              const Setting at{static_cast<adgan::Weights>(weights), static_cast<adgan::Loss>(loss), steps,
                               static_cast<adgan::Isa>(isa), compact};
              const long found = allocations_of_search(program, at);
              ++searches;
              if (found == 0) continue;
              wrong = 1;
              std::printf("%s: %ld allocations with weights %d, loss %d, %d steps, instruction set %d, compact %d\n",
                          name.c_str(), found, weights, loss, static_cast<int>(steps), isa, compact);
            }
          }
        }
      }
    }
  }
  std::printf("%ld searches\n", searches);
  return wrong;
}
