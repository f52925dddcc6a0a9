// What counts as an item of a list, and which tokens are an item's own.

#include "trainer/generate/list_prompting.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace plural::trainer {
namespace {

using Texts = std::vector<std::string>;

Texts Items(const std::string& text, bool first_is_item = false) {
  Texts items;
  for (const ListItem& item : SplitList(text, first_is_item)) {
    items.push_back(text.substr(item.begin, item.end - item.begin));
  }
  return items;
}

TEST(ListPrompting, LabelsAreCut) {
  for (const std::string label : {"1.", "2)", "(3)", "[4]", "5:", "#6", "-", "*", "\u2022",
                                  "Response 7:", "response 8:", "Person 9:", "#10.", "12)."}) {
    EXPECT_EQ(Items(label + " I like dogs."), Texts{"I like dogs."}) << label;
    EXPECT_EQ(Items("  " + label + "\tI like dogs. \r\n\n"), Texts{"I like dogs."}) << label;
  }
}

TEST(ListPrompting, WhatOnlyLooksLikeALabelStays) {
  for (const std::string text :
       {"3 dogs are enough.", "3.50 dollars a dog.", "5:30 is too late.", "At 5. Not before.",
        "-2 degrees outside.", "*smiles* Hello there.", "20000. It is a number.", "Fine, thanks."}) {
    EXPECT_EQ(Items(text), Texts{text}) << text;
  }
}

TEST(ListPrompting, HeadingsAreLeftOutWhereItemsHaveLabels) {
  EXPECT_EQ(Items("Here are some:\n1. A first one.\n\n2. A second one.\nI hope this helps!"),
            (Texts{"A first one.", "A second one."}));
  EXPECT_EQ(Items("A first one.\nA second one.\n"), (Texts{"A first one.", "A second one."}));
}

// The prompt ends with the first label, so the list begins with the first item's text.
TEST(ListPrompting, TheFirstLabelMayStandInThePrompt) {
  EXPECT_TRUE(EndsWithLabel("List five.\n\nResponse 1:"));
  EXPECT_TRUE(EndsWithLabel("[INST] List five. [/INST] Response 1: "));
  EXPECT_TRUE(EndsWithLabel("List five.\n1."));
  EXPECT_FALSE(EndsWithLabel("List five.\nPerson B:"));
  EXPECT_FALSE(EndsWithLabel("List 5 replies"));
  EXPECT_FALSE(EndsWithLabel(""));
  const std::string text = " A first one.\nResponse 2: A second one.\nThat is all.";
  EXPECT_EQ(Items(text, true), (Texts{"A first one.", "A second one."}));
  EXPECT_EQ(Items(text, false), (Texts{"A second one."}));
}

TEST(ListPrompting, ShortLinesAreLeftOut) {
  EXPECT_EQ(Items("1. Yes.\n2. Sure.\n3. \n4.\n"), Texts{"Sure."});
  // Characters count, not bytes: four of three bytes each are too few.
  EXPECT_EQ(Items("1. \u4f60\u597d\u4f60\u597d\n2. \u4f60\u597d\u4f60\u597d\u3002"),
            Texts{"\u4f60\u597d\u4f60\u597d\u3002"});
  EXPECT_EQ(Items(""), Texts{});
  EXPECT_EQ(Items("\n\n \n"), Texts{});
}

TEST(ListPrompting, TokensOfAnItem) {
  const Texts tokens = {"1.", " A", " dog", ".\n", "2. B", " cat", "."};
  const std::string text = "1. A dog.\n2. B cat.";
  const std::vector<ListItem> items = SplitList(text, false);
  ASSERT_EQ(items.size(), 2U);
  const auto first = TokensOfItem(tokens, items[0]);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->begin, 1U);  // the space before the item belongs to its token
  EXPECT_EQ(first->end, 4U);    // so does the line end after it
  EXPECT_FALSE(TokensOfItem(tokens, items[1]).has_value()) << "its first token holds the label, too";
}

}  // namespace
}  // namespace plural::trainer
